/* Vectors of float32, as long as the processor has them: 16 numbers with AVX-512, 8 with AVX2 and its fused products.

   Sums and products of vectors, and of a vector and a number, are written as those of numbers. */

#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

#ifdef __AVX512F__

#define LONG 16
typedef __m512 v;
typedef __m512i places;
INLINE v load(const float *from) { return _mm512_loadu_ps(from); }
INLINE void store(float *to, v x) { _mm512_storeu_ps(to, x); }
INLINE v zeros(void) { return _mm512_setzero_ps(); }
INLINE v every(float x) { return _mm512_set1_ps(x); }
INLINE v product_and(v a, v b, v more) { return _mm512_fmadd_ps(a, b, more); }
INLINE v larger(v a, v b) { return _mm512_max_ps(a, b); }
/* x times so many where `at` is not above 0, x elsewhere */
INLINE v scaled_below(v x, v at, float by) {
    return _mm512_mask_mul_ps(x, _mm512_cmp_ps_mask(at, _mm512_setzero_ps(), _CMP_LE_OQ), x, _mm512_set1_ps(by));
}
/* 0, 1, 2 ... times so many */
INLINE places multiples(int step) {
    return _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(step));
}
INLINE v gathered(const float *from, places at) { return _mm512_i32gather_ps(at, from, 4); }
INLINE void scatter(float *to, places at, v x) { _mm512_i32scatter_ps(to, at, x, 4); }

#else

#define LONG 8
typedef __m256 v;
typedef __m256i places;
INLINE v load(const float *from) { return _mm256_loadu_ps(from); }
INLINE void store(float *to, v x) { _mm256_storeu_ps(to, x); }
INLINE v zeros(void) { return _mm256_setzero_ps(); }
INLINE v every(float x) { return _mm256_set1_ps(x); }
INLINE v product_and(v a, v b, v more) { return _mm256_fmadd_ps(a, b, more); }
INLINE v larger(v a, v b) { return _mm256_max_ps(a, b); }
INLINE v scaled_below(v x, v at, float by) {
    return _mm256_blendv_ps(x, x * by, _mm256_cmp_ps(at, _mm256_setzero_ps(), _CMP_LE_OQ));
}
INLINE places multiples(int step) {
    return _mm256_mullo_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(step));
}
INLINE v gathered(const float *from, places at) { return _mm256_i32gather_ps(from, at, 4); }
INLINE void scatter(float *to, places at, v x) {
    int place[LONG];
    _mm256_storeu_si256((__m256i *)place, at);
    for (int i = 0; i < LONG; i++) to[place[i]] = x[i];
}

#endif
