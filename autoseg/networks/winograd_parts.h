/* What winograd.c does whatever the size of its tiles: transforms along one axis, and products of matrices. */

#include "vectors.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Transforms along one axis, in[i * is] -> out[i * os]; of the voxels of an input tile, m + 2 -> m + 2 */
INLINE void of_input(int m, const v *in, int is, v *out, int os) {
    if (m == 1) { out[0] = in[0]; return; }
    if (m == 2) {
        v a = in[0], b = in[is], c = in[2 * is], d = in[3 * is];
        out[0] = a - c; out[os] = b + c; out[2 * os] = c - b; out[3 * os] = b - d;
        return;
    }
    v d0 = in[0], d1 = in[is], d2 = in[2 * is], d3 = in[3 * is], d4 = in[4 * is], d5 = in[5 * is];
    v p = d4 - 4.0f * d2, q = d3 - 4.0f * d1, r = d4 - d2, s = 2.0f * (d3 - d1);
    out[0] = 4.0f * d0 - 5.0f * d2 + d4;
    out[os] = p + q; out[2 * os] = p - q; out[3 * os] = r + s; out[4 * os] = r - s;
    out[5 * os] = 4.0f * d1 - 5.0f * d3 + d5;
}

/* of the products to voxels of the result, m + 2 -> m */
INLINE void of_product(int m, const v *in, int is, v *out, int os) {
    if (m == 1) { out[0] = in[0]; return; }
    if (m == 2) {
        v a = in[0], b = in[is], c = in[2 * is], d = in[3 * is];
        out[0] = a + b + c; out[os] = b - c - d;
        return;
    }
    v a = in[is] + in[2 * is], b = in[is] - in[2 * is], c = in[3 * is] + in[4 * is], d = in[3 * is] - in[4 * is];
    out[0] = in[0] + a + c; out[os] = b + 2.0f * d; out[2 * os] = a + 4.0f * c; out[3 * os] = b + 8.0f * d + in[5 * is];
}

/* the transposed of it, from the result's gradient to that of the products, m -> m + 2 */
INLINE void of_gradient(int m, const v *in, int is, v *out, int os) {
    if (m == 1) { out[0] = in[0]; return; }
    if (m == 2) {
        v a = in[0], b = in[is];
        out[0] = a; out[os] = a + b; out[2 * os] = a - b; out[3 * os] = -b;
        return;
    }
    v a = in[0], b = in[is], c = in[2 * is], d = in[3 * is];
    v p = a + c, q = b + d, r = a + 4.0f * c, s = 2.0f * b + 8.0f * d;
    out[0] = a; out[os] = p + q; out[2 * os] = p - q; out[3 * os] = r + s; out[4 * os] = r - s; out[5 * os] = d;
}

/* of a kernel, 3 -> m + 2 */
INLINE void of_kernel(int m, const v *in, int is, v *out, int os) {
    if (m == 1) { out[0] = in[0]; return; }
    v a = in[0], b = in[is], c = in[2 * is];
    if (m == 2) {
        v p = 0.5f * (a + c), q = 0.5f * b;
        out[0] = a; out[os] = p + q; out[2 * os] = p - q; out[3 * os] = c;
        return;
    }
    v p = (a + c) * (-1.0f / 6), q = b * (-1.0f / 6), r = a * (1.0f / 24) + c * (1.0f / 6), s = b * (1.0f / 12);
    out[0] = 0.25f * a; out[os] = p + q; out[2 * os] = p - q; out[3 * os] = r + s; out[4 * os] = r - s; out[5 * os] = c;
}

/* the transposed of it, m + 2 -> 3 */
INLINE void to_kernel(int m, const v *in, int is, v *out, int os) {
    if (m == 1) { out[0] = in[0]; return; }
    v a = in[is] + in[2 * is], b = in[is] - in[2 * is];
    if (m == 2) {
        out[0] = in[0] + 0.5f * a; out[os] = 0.5f * b; out[2 * os] = 0.5f * a + in[3 * is];
        return;
    }
    v c = in[3 * is] + in[4 * is], d = in[3 * is] - in[4 * is];
    out[0] = 0.25f * in[0] - a * (1.0f / 6) + c * (1.0f / 24);
    out[os] = d * (1.0f / 12) - b * (1.0f / 6);
    out[2 * os] = (c - a) * (1.0f / 6) + in[5 * is];
}

#define CAT2(a, b) a##b
#define CAT(a, b) CAT2(a, b)
#define FUNCTION(name) CAT(name, SUFFIX)

/* Rows of a product that are summed up at once, in so many registers as there are: of multiply, and of add_product */
#if LONG == 16
#define ROWS 12
#define SUMMED 8
#else
#define ROWS 6
#define SUMMED 4
#endif

/* m (ROWS x width) = a (ROWS x depth) * b (depth x width), width of two vectors or one; rows of m are `columns` apart */
INLINE void few_rows(const float *a, const float *b, float *m, int depth, int columns, int wide) {
    v low[ROWS], high[ROWS];
    for (int r = 0; r < ROWS; r++) low[r] = high[r] = zeros();
    for (int k = 0; k < depth; k++) {
        const float *from = b + (size_t)k * (wide ? 2 * LONG : LONG);
        const v b0 = load(from), b1 = wide ? load(from + LONG) : b0;
#pragma GCC unroll 12
        for (int r = 0; r < ROWS; r++) {
            const v one = every(a[(size_t)r * depth + k]);
            low[r] = product_and(one, b0, low[r]);
            if (wide) high[r] = product_and(one, b1, high[r]);
        }
    }
    for (int r = 0; r < ROWS; r++) {
        store(m + (size_t)r * columns, low[r]);
        if (wide) store(m + (size_t)r * columns + LONG, high[r]);
    }
}

/* m (rows x columns) = a (rows x depth) * b; rows a multiple of 12. b is cut into panels of two vectors' columns (the last may have one),
   one after the other, each (depth x 2 LONG). */
static void multiply(const float *a, const float *b, float *m, int rows, int depth, int columns) {
    int j = 0;
    for (; j + 2 * LONG <= columns; j += 2 * LONG)
        for (int i = 0; i < rows; i += ROWS)
            few_rows(a + (size_t)i * depth, b + (size_t)j * depth, m + (size_t)i * columns + j, depth, columns, 1);
    if (j < columns)
        for (int i = 0; i < rows; i += ROWS)
            few_rows(a + (size_t)i * depth, b + (size_t)j * depth, m + (size_t)i * columns + j, depth, columns, 0);
}

/* m (SUMMED x width) += the transposed of a (depth x SUMMED) * b (depth x width); rows of a are `ra` apart, of b `rb`, of m `columns` */
INLINE void summed_rows(const float *a, size_t ra, const float *b, size_t rb, float *m, int depth, int columns, int wide) {
    v low[SUMMED], high[SUMMED];
    for (int r = 0; r < SUMMED; r++) {
        low[r] = load(m + (size_t)r * columns);
        high[r] = wide ? load(m + (size_t)r * columns + LONG) : low[r];
    }
    for (int k = 0; k < depth; k++) {
        const v b0 = load(b + k * rb), b1 = wide ? load(b + k * rb + LONG) : b0;
#pragma GCC unroll 8
        for (int r = 0; r < SUMMED; r++) {
            const v one = every(a[k * ra + r]);
            low[r] = product_and(one, b0, low[r]);
            if (wide) high[r] = product_and(one, b1, high[r]);
        }
    }
    for (int r = 0; r < SUMMED; r++) {
        store(m + (size_t)r * columns, low[r]);
        if (wide) store(m + (size_t)r * columns + LONG, high[r]);
    }
}

/* m (rows x columns) += the transposed of a (depth x rows) * b (depth x columns) */
static void add_product(const float *a, size_t ra, const float *b, size_t rb, float *m, int depth, int rows, int columns) {
    int j = 0;
    for (; j + 2 * LONG <= columns; j += 2 * LONG)
        for (int i = 0; i < rows; i += SUMMED) summed_rows(a + i, ra, b + j, rb, m + (size_t)i * columns + j, depth, columns, 1);
    if (j < columns)
        for (int i = 0; i < rows; i += SUMMED) summed_rows(a + i, ra, b + j, rb, m + (size_t)i * columns + j, depth, columns, 0);
}

/* Between matrices, and their rows: those a power of two apart would share a few lines of the cache. */
#define PAD 80

/* Memory in large pages where the system has some: a transformed tile is written to as many places as it has points. */
static float *room(size_t bytes) {
    const size_t page = (size_t)1 << 21, whole = (bytes + page - 1) / page * page;
    float *found = aligned_alloc(bytes < page / 8 ? 64 : page, bytes < page / 8 ? (bytes + 63) / 64 * 64 : whole);
#ifdef MADV_HUGEPAGE
    if (found && bytes >= page / 8) madvise(found, whole, MADV_HUGEPAGE);
#endif
    return found;
}

