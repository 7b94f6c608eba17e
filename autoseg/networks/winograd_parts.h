/* What winograd.c does whatever the size of its tiles: transforms along one axis, and products of matrices. */

#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define INLINE static inline __attribute__((always_inline))
typedef __m512 v;

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

/* 0, 1, ... 15 times so many */
INLINE __m512i multiples(int step) {
    return _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(step));
}

#define CAT2(a, b) a##b
#define CAT(a, b) CAT2(a, b)
#define FUNCTION(name) CAT(name, SUFFIX)

/* m (12 x width) = a (12 x depth) * b (depth x width), width 32 or 16; rows of m are `columns` apart */
INLINE void rows12(const float *a, const float *b, float *m, int depth, int columns, int wide) {
    v low[12], high[12];
    for (int r = 0; r < 12; r++) low[r] = high[r] = _mm512_setzero_ps();
    for (int k = 0; k < depth; k++) {
        const float *from = b + (size_t)k * (wide ? 32 : 16);
        const v b0 = _mm512_loadu_ps(from), b1 = wide ? _mm512_loadu_ps(from + 16) : b0;
#pragma GCC unroll 12
        for (int r = 0; r < 12; r++) {
            const v one = _mm512_set1_ps(a[(size_t)r * depth + k]);
            low[r] = _mm512_fmadd_ps(one, b0, low[r]);
            if (wide) high[r] = _mm512_fmadd_ps(one, b1, high[r]);
        }
    }
    for (int r = 0; r < 12; r++) {
        _mm512_storeu_ps(m + (size_t)r * columns, low[r]);
        if (wide) _mm512_storeu_ps(m + (size_t)r * columns + 16, high[r]);
    }
}

/* m (rows x columns) = a (rows x depth) * b; rows a multiple of 12. b is cut into panels of 32 columns (the last may have 16), one after
   the other, each (depth x 32). */
static void multiply(const float *a, const float *b, float *m, int rows, int depth, int columns) {
    int j = 0;
    for (; j + 32 <= columns; j += 32)
        for (int i = 0; i < rows; i += 12)
            rows12(a + (size_t)i * depth, b + (size_t)j * depth, m + (size_t)i * columns + j, depth, columns, 1);
    if (j < columns)
        for (int i = 0; i < rows; i += 12)
            rows12(a + (size_t)i * depth, b + (size_t)j * depth, m + (size_t)i * columns + j, depth, columns, 0);
}

/* m (8 x width) += the transposed of a (depth x 8) * b (depth x width); rows of a are `ra` apart, of b `rb`, of m `columns` */
INLINE void rows8(const float *a, size_t ra, const float *b, size_t rb, float *m, int depth, int columns, int wide) {
    v low[8], high[8];
    for (int r = 0; r < 8; r++) {
        low[r] = _mm512_loadu_ps(m + (size_t)r * columns);
        high[r] = wide ? _mm512_loadu_ps(m + (size_t)r * columns + 16) : low[r];
    }
    for (int k = 0; k < depth; k++) {
        const v b0 = _mm512_loadu_ps(b + k * rb), b1 = wide ? _mm512_loadu_ps(b + k * rb + 16) : b0;
#pragma GCC unroll 8
        for (int r = 0; r < 8; r++) {
            const v one = _mm512_set1_ps(a[k * ra + r]);
            low[r] = _mm512_fmadd_ps(one, b0, low[r]);
            if (wide) high[r] = _mm512_fmadd_ps(one, b1, high[r]);
        }
    }
    for (int r = 0; r < 8; r++) {
        _mm512_storeu_ps(m + (size_t)r * columns, low[r]);
        if (wide) _mm512_storeu_ps(m + (size_t)r * columns + 16, high[r]);
    }
}

/* m (rows x columns) += the transposed of a (depth x rows) * b (depth x columns) */
static void add_product(const float *a, size_t ra, const float *b, size_t rb, float *m, int depth, int rows, int columns) {
    int j = 0;
    for (; j + 32 <= columns; j += 32)
        for (int i = 0; i < rows; i += 8) rows8(a + i, ra, b + j, rb, m + (size_t)i * columns + j, depth, columns, 1);
    if (j < columns)
        for (int i = 0; i < rows; i += 8) rows8(a + i, ra, b + j, rb, m + (size_t)i * columns + j, depth, columns, 0);
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

