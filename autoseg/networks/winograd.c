/* Convolutions with kernels of 3 voxels an axis (or 1 along z) by minimal filtering: Winograd 1980; Lavin and Gray, CVPR 2016.

   A tile of MZ x MY x MX voxels of the result needs (M + 2) voxels of the input along each axis. Both are transformed by a few additions
   along each axis; between them the convolution is a product by voxel ("point") of the transformed tile, a matrix product over channels:
   3.4 to 6 times fewer multiplications than the sum itself in three dimensions, 4 in two. Batches are channels-last, float32, with channels
   in multiples of 16. Translated by native.py. The file includes itself once for each size of tile. */

#ifndef MZ
#include "winograd_parts.h"

#define MZ 1
#define MY 4
#define MX 4
#define SUFFIX _144
#include __FILE__
#undef MZ
#undef MY
#undef MX
#undef SUFFIX
#define MZ 2
#define MY 2
#define MX 2
#define SUFFIX _222
#include __FILE__
#undef MZ
#undef MY
#undef MX
#undef SUFFIX
#define MZ 2
#define MY 4
#define MX 4
#define SUFFIX _244
#include __FILE__

#else

#define EZ (MZ == 1 ? 1 : MZ + 2)
#define KZ (MZ == 1 ? 1 : 3)
#define EY (MY + 2)
#define EX (MX + 2)
#define POINTS (EZ * EY * EX)

/* voxels [z, z + nz) ... of LONG channels of a sample, 0 outside, transformed and written to out + point * step */
INLINE void FUNCTION(tile_in)(const float *x, int z, int y, int xx, int d, int h, int w, int c, float *out, size_t step) {
    v t[POINTS], s[EY * EX];
    const v zero = zeros();
    for (int k = 0; k < EZ; k++) {
        v *to = t + k * EY * EX;
        int zi = z + k;
        if (zi < 0 || zi >= d) { for (int i = 0; i < EY * EX; i++) to[i] = zero; continue; }
        for (int j = 0; j < EY; j++) {
            int yi = y + j;
            v row[EX];
            if (yi < 0 || yi >= h) { for (int i = 0; i < EX; i++) s[j * EX + i] = zero; continue; }
            const float *from = x + (((ptrdiff_t)zi * h + yi) * w + xx) * c;
            if (xx >= 0 && xx + EX <= w)
                for (int i = 0; i < EX; i++) row[i] = load(from + (ptrdiff_t)i * c);
            else
                for (int i = 0; i < EX; i++)
                    row[i] = xx + i >= 0 && xx + i < w ? load(from + (ptrdiff_t)i * c) : zero;
            of_input(MX, row, 1, s + j * EX, 1);
        }
        for (int i = 0; i < EX; i++) of_input(MY, s + i, EX, to + i, EX);
    }
    for (int i = 0; i < EY * EX; i++) {
        v column[EZ];
        of_input(MZ, t + i, EY * EX, column, 1);
        for (int k = 0; k < EZ; k++) store(out + (size_t)(k * EY * EX + i) * step, column[k]);
    }
}

/* the gradient of a tile's result likewise */
INLINE void FUNCTION(tile_gradient)(const float *x, int z, int y, int xx, int d, int h, int w, int c, float *out, size_t step) {
    v t[MZ * EY * EX], s[MY * EX];
    const v zero = zeros();
    for (int k = 0; k < MZ; k++) {
        v *to = t + k * EY * EX;
        if (z + k >= d) { for (int i = 0; i < EY * EX; i++) to[i] = zero; continue; }
        for (int j = 0; j < MY; j++) {
            v row[MX];
            if (y + j >= h) { for (int i = 0; i < EX; i++) s[j * EX + i] = zero; continue; }
            const float *from = x + (((ptrdiff_t)(z + k) * h + y + j) * w + xx) * c;
            for (int i = 0; i < MX; i++) row[i] = xx + i < w ? load(from + (ptrdiff_t)i * c) : zero;
            of_gradient(MX, row, 1, s + j * EX, 1);
        }
        for (int i = 0; i < EX; i++) of_gradient(MY, s + i, EX, to + i, EX);
    }
    for (int i = 0; i < EY * EX; i++) {
        v column[EZ];
        of_gradient(MZ, t + i, EY * EX, column, 1);
        for (int k = 0; k < EZ; k++) store(out + (size_t)(k * EY * EX + i) * step, column[k]);
    }
}

INLINE void FUNCTION(tile_out)(const float *in, size_t step, v bias, float *y, int z, int yy, int xx, int d, int h, int w, int c) {
    v t[MZ * EY * EX], s[MY * EX], r[MX];
    for (int i = 0; i < EY * EX; i++) {
        v column[EZ];
        for (int k = 0; k < EZ; k++) column[k] = load(in + (size_t)(k * EY * EX + i) * step);
        of_product(MZ, column, 1, t + i, EY * EX);
    }
    for (int k = 0; k < MZ && z + k < d; k++) {
        for (int i = 0; i < EX; i++) of_product(MY, t + k * EY * EX + i, EX, s + i, EX);
        for (int j = 0; j < MY && yy + j < h; j++) {
            of_product(MX, s + j * EX, 1, r, 1);
            float *to = y + (((ptrdiff_t)(z + k) * h + yy + j) * w + xx) * c;
            for (int i = 0; i < MX && xx + i < w; i++) store(to + (ptrdiff_t)i * c, r[i] + bias);
        }
    }
}

/* where tile number `at` of n samples begins, and its sample */
#define PLACE(at) \
    const int x0 = (at) % nx * MX, y0 = (at) / nx % ny * MY, z0 = (at) / nx / ny % nz * MZ; \
    const size_t voxels = (size_t)((at) / nx / ny / nz) * d * h * w;

#define SIZES \
    const int n = size[0], d = size[1], h = size[2], w = size[3]; \
    const int nz = (d + MZ - 1) / MZ, ny = (h + MY - 1) / MY, nx = (w + MX - 1) / MX; \
    const long all = (long)n * nz * ny * nx; \
    int failed = 0;

#define SMALLER(a, b) ((a) < (b) ? (a) : (b))

INLINE void FUNCTION(read)(const float *x, long at, const long *size, int channels, float *out, size_t step) {
    SIZES PLACE(at)
    (void)all, (void)failed;
    for (int c = 0; c < channels; c += LONG)
        FUNCTION(tile_in)(x + voxels * channels + c, z0 - (MZ > 1), y0 - 1, x0 - 1, d, h, w, channels, out + c, step);
}

INLINE void FUNCTION(read_gradient)(const float *x, long at, const long *size, int channels, float *out, size_t step) {
    SIZES PLACE(at)
    (void)all, (void)failed;
    for (int c = 0; c < channels; c += LONG)
        FUNCTION(tile_gradient)(x + voxels * channels + c, z0, y0, x0, d, h, w, channels, out + c, step);
}

INLINE void FUNCTION(write)(const float *in, size_t step, const float *bias, float *y, long at, const long *size, int channels) {
    SIZES PLACE(at)
    (void)all, (void)failed;
    for (int c = 0; c < channels; c += LONG) {
        const v more = bias ? load(bias + c) : zeros();
        FUNCTION(tile_out)(in + c, step, more, y + voxels * channels + c, z0, y0, x0, d, h, w, channels);
    }
}

/* y = x convolved with kernels u, as expand gives them, plus bias (or none); size is samples, planes, rows and columns. Each thread takes
   some tiles (a multiple of 12) through all three stages, within its own cache. */
int FUNCTION(convolve)(const float *x, const float *u, const float *bias, float *y, const long *size, int in, int out, int tiles,
                       int threads) {
    SIZES
    const long blocks = (all + tiles - 1) / tiles;
#pragma omp parallel num_threads(threads)
    {
        const size_t of_a = (size_t)tiles * in + PAD, of_m = (size_t)tiles * out + PAD;
        float *a = room(POINTS * of_a * 4), *m = room(POINTS * of_m * 4);
        if (!a || !m) failed = 1;
        /* Rows of the last block without a tile are multiplied, too. */
        if (a) memset(a, 0, POINTS * of_a * 4);
#pragma omp for schedule(dynamic, 1)
        for (long block = 0; block < blocks; block++) {
            const int count = SMALLER(all - block * tiles, tiles);
            for (int t = 0; a && m && t < count; t++) FUNCTION(read)(x, block * tiles + t, size, in, a + (size_t)t * in, of_a);
            for (int p = 0; a && m && p < POINTS; p++)
                multiply(a + p * of_a, u + (size_t)p * in * out, m + p * of_m, (count + 11) / 12 * 12, in, out);
            for (int t = 0; a && m && t < count; t++)
                FUNCTION(write)(m + (size_t)t * out, of_m, bias, y, block * tiles + t, size, out);
        }
        free(a);
        free(m);
    }
    return failed;
}

/* The same for kernels that no cache holds: all threads take many tiles (a multiple of 12) through one stage after the other, so that
   each kernel is read once for all of them. */
int FUNCTION(convolve_wide)(const float *x, const float *u, const float *bias, float *y, const long *size, int in, int out, int tiles,
                            int threads) {
    SIZES
    const size_t of_a = (size_t)tiles * in + PAD, of_m = (size_t)tiles * out + PAD;
    float *a = room(POINTS * of_a * 4), *m = room(POINTS * of_m * 4);
    if (!a || !m) failed = 1;
    if (a) memset(a, 0, POINTS * of_a * 4);
    for (long first = 0; !failed && first < all; first += tiles) {
        const int count = SMALLER(all - first, tiles);
#pragma omp parallel num_threads(threads)
        {
#pragma omp for
            for (int t = 0; t < count; t++) FUNCTION(read)(x, first + t, size, in, a + (size_t)t * in, of_a);
#pragma omp for
            for (int p = 0; p < POINTS; p++)
                multiply(a + p * of_a, u + (size_t)p * in * out, m + p * of_m, (count + 11) / 12 * 12, in, out);
#pragma omp for
            for (int t = 0; t < count; t++) FUNCTION(write)(m + (size_t)t * out, of_m, bias, y, first + t, size, out);
        }
    }
    free(a);
    free(m);
    return failed;
}

/* The gradient of transformed kernels, one for each thread: sum (threads, POINTS, in, out), zeros at first. */
int FUNCTION(weights)(const float *x, const float *g, float *sum, const long *size, int in, int out, int tiles, int threads) {
    SIZES
    const long blocks = (all + tiles - 1) / tiles;
#pragma omp parallel for schedule(static, 1) num_threads(threads)
    for (int thread = 0; thread < threads; thread++) {
        const size_t of_a = (size_t)tiles * in + PAD, of_b = (size_t)tiles * out + PAD;
        float *a = room(POINTS * of_a * 4), *b = room(POINTS * of_b * 4);
        float *mine = sum + (size_t)thread * POINTS * in * out;
        if (!a || !b) failed = 1;
        for (long block = thread * blocks / threads; a && b && block < (thread + 1) * blocks / threads; block++) {
            const int count = SMALLER(all - block * tiles, tiles);
            for (int t = 0; t < count; t++) {
                FUNCTION(read)(x, block * tiles + t, size, in, a + (size_t)t * in, of_a);
                FUNCTION(read_gradient)(g, block * tiles + t, size, out, b + (size_t)t * out, of_b);
            }
            for (int p = 0; p < POINTS; p++)
                add_product(a + p * of_a, in, b + p * of_b, out, mine + (size_t)p * in * out, count, in, out);
        }
        free(a);
        free(b);
    }
    return failed;
}

/* The same for kernels that no cache holds: one sum (POINTS, in, out), to which each thread adds at some of the points. */
int FUNCTION(weights_wide)(const float *x, const float *g, float *sum, const long *size, int in, int out, int tiles, int threads) {
    SIZES
    const size_t ra = in + 16, rb = out + 16, of_a = tiles * ra + PAD, of_b = tiles * rb + PAD;
    float *a = room(POINTS * of_a * 4), *b = room(POINTS * of_b * 4);
    if (!a || !b) failed = 1;
    for (long first = 0; !failed && first < all; first += tiles) {
        const int count = SMALLER(all - first, tiles);
#pragma omp parallel num_threads(threads)
        {
#pragma omp for
            for (int t = 0; t < count; t++) {
                FUNCTION(read)(x, first + t, size, in, a + t * ra, of_a);
                FUNCTION(read_gradient)(g, first + t, size, out, b + t * rb, of_b);
            }
#pragma omp for
            for (int p = 0; p < POINTS; p++) add_product(a + p * of_a, ra, b + p * of_b, rb, sum + (size_t)p * in * out, count, in, out);
        }
    }
    free(a);
    free(b);
    return failed;
}

/* Kernels w (out, voxels, in), as channels-last layout has them, transformed: u (POINTS, in, out), in the panels of `multiply`.
   Or, for the gradient of the input, reversed along every axis and to be multiplied from the other side: u (POINTS, out, in). */
int FUNCTION(expand)(const float *w, float *u, int in, int out, int reversed, int threads) {
    const long size = KZ * 9 * (long)in, rows = reversed ? out : in, columns = reversed ? in : out;
    const places apart = multiples(size);
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        /* Sixteen rows at a time, so that lines of w are used whole, and then written in long pieces: single vectors of so many points
           would lie in as many pages. */
        float *buffer = room(16 * POINTS * columns * 4);
        if (!buffer) failed = 1;
#pragma omp for
        for (long first = 0; first < rows; first += 16) {
            for (long column = 0; buffer && column < columns; column += LONG)
                for (long row = first; row < first + 16; row++) {
                    v k[KZ * 9], lines[KZ * 3 * EX], planes[KZ * EY * EX], line[EZ];
                    for (int j = 0; j < KZ * 9; j++)
                        k[j] = reversed ? load(w + row * size + (KZ * 9 - 1 - j) * in + column)
                                        : gathered(w + column * size + j * in + row, apart);
                    for (int j = 0; j < KZ * 3; j++) of_kernel(MX, k + j * 3, 1, lines + j * EX, 1);
                    for (int z = 0; z < KZ; z++)
                        for (int j = 0; j < EX; j++) of_kernel(MY, lines + z * 3 * EX + j, EX, planes + z * EY * EX + j, EX);
                    for (int j = 0; j < EY * EX; j++) {
                        of_kernel(MZ, planes + j, EY * EX, line, 1);
                        for (int z = 0; z < EZ; z++)
                            store(buffer + ((row - first) * POINTS + z * EY * EX + j) * columns + column, line[z]);
                    }
                }
            for (long p = 0; buffer && p < POINTS; p++)
                for (long column = 0; column < columns; column += 2 * LONG) {
                    const long width = SMALLER(columns - column, 2 * LONG);
                    for (long row = first; row < first + 16; row++)
                        memcpy(u + (p * columns + column) * rows + row * width, buffer + ((row - first) * POINTS + p) * columns + column,
                               width * 4);
                }
        }
        free(buffer);
    }
    return failed;
}

/* the gradient of kernels w (out, voxels, in) from those of their transforms (parts, POINTS, in, out), whose parts are added */
int FUNCTION(reduce)(const float *sum, int parts, float *w, int in, int out, int threads) {
    const long size = KZ * 9 * (long)in;
    const places apart = multiples(size);
    int failed = 0;
#pragma omp parallel num_threads(threads)
    {
        float *buffer = room(16 * POINTS * (size_t)out * 4);
        if (!buffer) failed = 1;
#pragma omp for
        for (long first = 0; first < in; first += 16) {
            for (long p = 0; buffer && p < POINTS; p++)
                for (long row = first; row < first + 16; row++)
                    for (long column = 0; column < out; column += LONG) {
                        v all = zeros();
                        for (long part = 0; part < parts; part++)
                            all += load(sum + ((part * POINTS + p) * in + row) * out + column);
                        store(buffer + ((row - first) * POINTS + p) * out + column, all);
                    }
            for (long column = 0; buffer && column < out; column += LONG)
                for (long row = first; row < first + 16; row++) {
                    v planes[KZ * EY * EX], lines[KZ * 3 * EX], line[EZ], three[3];
                    for (int j = 0; j < EY * EX; j++) {
                        for (int z = 0; z < EZ; z++)
                            line[z] = load(buffer + ((row - first) * POINTS + z * EY * EX + j) * out + column);
                        to_kernel(MZ, line, 1, planes + j, EY * EX);
                    }
                    for (int z = 0; z < KZ; z++)
                        for (int j = 0; j < EX; j++) to_kernel(MY, planes + z * EY * EX + j, EX, lines + z * 3 * EX + j, EX);
                    for (int j = 0; j < KZ * 3; j++) {
                        to_kernel(MX, lines + j * EX, 1, three, 1);
                        for (int x = 0; x < 3; x++)
                            scatter(w + column * size + (j * 3 + x) * in + row, apart, three[x]);
                    }
                }
        }
        free(buffer);
    }
    return failed;
}

#undef PLACE
#undef SIZES
#undef SMALLER
#undef EZ
#undef KZ
#undef EY
#undef EX
#undef POINTS
#endif
