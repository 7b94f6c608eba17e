/* Instance normalisation and LeakyReLU of channels-last float32 batches (samples, voxels, channels), channels a multiple of 16, each in two
   passes over memory. Statistics are taken of one chunk of voxels after the other, which stays in the first cache, and merged in order:
   they do not depend on the number of threads, and lose nothing where a mean is large. Translated by native.py. */

#include "vectors.h"
#include <math.h>
#include <stdlib.h>

#define CHUNK 2048 /* numbers */

INLINE long rows_of(int channels) { return channels < CHUNK / 16 ? CHUNK / channels : 16; }

long chunks(long voxels, int channels) { return (voxels + rows_of(channels) - 1) / rows_of(channels); }

/* parts (samples, chunks, 2, channels): means, and sums of squared deviations from them; mean and scale (samples, channels) */
int statistics(const float *x, float *parts, float *mean, float *scale, long samples, long voxels, int channels, float eps, int threads) {
    const long rows = rows_of(channels), count = chunks(voxels, channels);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < samples * count; i++) {
        const long first = i % count * rows, n = voxels - first < rows ? voxels - first : rows;
        const float *from = x + (i / count * voxels + first) * channels;
        float *to = parts + i * 2 * channels;
        for (int c = 0; c < channels; c += LONG) {
            v sum = zeros(), more = sum, squares = sum, other = sum;
            long r = 0;
            for (; r + 1 < n; r += 2) {
                sum += load(from + r * channels + c);
                more += load(from + (r + 1) * channels + c);
            }
            if (r < n) sum += load(from + r * channels + c);
            const v average = (sum + more) / (float)n;
            for (r = 0; r + 1 < n; r += 2) {
                const v a = load(from + r * channels + c) - average;
                const v b = load(from + (r + 1) * channels + c) - average;
                squares += a * a;
                other += b * b;
            }
            if (r < n) {
                const v a = load(from + r * channels + c) - average;
                squares += a * a;
            }
            store(to + c, average);
            store(to + channels + c, squares + other);
        }
    }
    /* By one thread: to wait for the others once more costs more, beside other programs a time slice. */
    const long groups = channels / 16;
    for (long i = 0; i < samples * groups; i++) {
        const long at = i / groups * channels + i % groups * 16;
        double average[16] = {0}, squares[16] = {0}, before = 0;
        for (long j = 0; j < count; j++) {
            const float *part = parts + (i / groups * count + j) * 2 * channels + i % groups * 16;
            const double n = j < count - 1 ? rows : voxels - j * rows;
            for (int c = 0; c < 16; c++) {
                const double difference = part[c] - average[c];
                average[c] += difference * n / (before + n);
                squares[c] += part[channels + c] + difference * difference * before * n / (before + n);
            }
            before += n;
        }
        for (int c = 0; c < 16; c++) {
            mean[at + c] = average[c];
            scale[at + c] = 1 / sqrt(squares[c] / voxels + eps);
        }
    }
    return 0;
}

/* y = LeakyReLU(factor x + term), factor and term (samples, channels), 0 < slope <= 1 */
int apply(const float *x, const float *factor, const float *term, float *y, long samples, long voxels, int channels, float slope,
          int threads) {
    const long rows = rows_of(channels), count = chunks(voxels, channels);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < samples * count; i++) {
        const long sample = i / count, first = i % count * rows, n = voxels - first < rows ? voxels - first : rows;
        const float *from = x + (sample * voxels + first) * channels;
        float *to = y + (sample * voxels + first) * channels;
        for (int c = 0; c < channels; c += LONG) {
            const v a = load(factor + sample * channels + c), b = load(term + sample * channels + c);
            for (long r = 0; r < n; r++) {
                const v value = load(from + r * channels + c) * a + b;
                store(to + r * channels + c, larger(value, value * slope));
            }
        }
    }
    return 0;
}

/* g through LeakyReLU, whose input is factor x + term */
INLINE v before_activation(v g, v x, v a, v b, float slope) {
    return scaled_below(g, x * a + b, slope);
}

/* parts (samples, chunks, 2, channels): sums of the gradient before the activation, and of it times (x - mean).
   Voxels of the gradient are `step` numbers apart, samples `jump`. */
int sums(const float *g, const float *x, const float *factor, const float *term, const float *mean, float *parts,
         long samples, long voxels, int channels, long step, long jump, float slope, int threads) {
    const long rows = rows_of(channels), count = chunks(voxels, channels);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < samples * count; i++) {
        const long sample = i / count, first = i % count * rows, n = voxels - first < rows ? voxels - first : rows;
        const float *from = x + (sample * voxels + first) * channels, *of = g + sample * jump + first * step;
        float *to = parts + i * 2 * channels;
        for (int c = 0; c < channels; c += LONG) {
            const v a = load(factor + sample * channels + c), b = load(term + sample * channels + c);
            const v average = load(mean + sample * channels + c);
            v plain = zeros(), product = plain;
            for (long r = 0; r < n; r++) {
                const v value = load(from + r * channels + c);
                const v gradient = before_activation(load(of + r * step + c), value, a, b, slope);
                plain += gradient;
                product += gradient * (value - average);
            }
            store(to + c, plain);
            store(to + channels + c, product);
        }
    }
    return 0;
}

/* result = factor * (gradient before the activation) + by_x * x + constant */
int descend(const float *g, const float *x, const float *factor, const float *term, const float *by_x, const float *constant, float *result,
            long samples, long voxels, int channels, long step, long jump, float slope, int threads) {
    const long rows = rows_of(channels), count = chunks(voxels, channels);
#pragma omp parallel for num_threads(threads)
    for (long i = 0; i < samples * count; i++) {
        const long sample = i / count, first = i % count * rows, n = voxels - first < rows ? voxels - first : rows;
        const long offset = (sample * voxels + first) * channels;
        const float *from = x + offset, *of = g + sample * jump + first * step;
        for (int c = 0; c < channels; c += LONG) {
            const long at = sample * channels + c;
            const v a = load(factor + at), b = load(term + at);
            const v k = load(by_x + at), rest = load(constant + at);
            for (long r = 0; r < n; r++) {
                const v value = load(from + r * channels + c);
                const v gradient = before_activation(load(of + r * step + c), value, a, b, slope);
                store(result + offset + r * channels + c, gradient * a + value * k + rest);
            }
        }
    }
    return 0;
}
