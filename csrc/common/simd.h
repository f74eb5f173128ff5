// A vector of floats or doubles, as wide as the instruction set of this build allows.
//
// One source serves every instruction set: the compiler's vector extensions give +, * and fused multiply-add
// (-ffp-contract=fast), and the tile sizes below follow from the number of registers.
#pragma once

#include <cstdint>
#include <type_traits>

#ifdef NST_X86
#include <immintrin.h>
#endif

namespace nst::NST_ISA_NS {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64, vector_registers = 32;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32, vector_registers = 16;
#elif defined(__aarch64__)
constexpr int vector_bytes = 16, vector_registers = 32;
#else
constexpr int vector_bytes = 16, vector_registers = 16;
#endif

template <class T>
struct VectorOf;
template <>
struct VectorOf<float> {
    typedef float type __attribute__((vector_size(vector_bytes)));
    typedef float in_memory __attribute__((vector_size(vector_bytes), aligned(4), may_alias));
};
template <>
struct VectorOf<double> {
    typedef double type __attribute__((vector_size(vector_bytes)));
    typedef double in_memory __attribute__((vector_size(vector_bytes), aligned(8), may_alias));
};

// A vector in a register; variables of this type are aligned. Arrays are read and written by load and store, which
// expect no more alignment than their elements have.
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(T));

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename VectorOf<T>::in_memory*>(p);
}

template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename VectorOf<T>::in_memory*>(p) = v;
}

// Stores past the caches: for a result too large to stay in them, whose lines need not be read before they are
// written. p must be aligned to the vector; stream_end comes before another thread may read.
#if defined(NST_X86) && defined(__AVX512F__)
inline void store_stream(float* p, Vec<float> v) { _mm512_stream_ps(p, v); }
inline void store_stream(double* p, Vec<double> v) { _mm512_stream_pd(p, v); }
#elif defined(NST_X86) && defined(__AVX2__)
inline void store_stream(float* p, Vec<float> v) { _mm256_stream_ps(p, v); }
inline void store_stream(double* p, Vec<double> v) { _mm256_stream_pd(p, v); }
#elif defined(NST_X86)
inline void store_stream(float* p, Vec<float> v) { _mm_stream_ps(p, v); }
inline void store_stream(double* p, Vec<double> v) { _mm_stream_pd(p, v); }
#else
inline void store_stream(float* p, Vec<float> v) { store(p, v); }
inline void store_stream(double* p, Vec<double> v) { store(p, v); }
#endif

inline void stream_end() {
#ifdef NST_X86
    _mm_sfence();
#endif
}

// A vector of 32-bit integers, each of which may be a pair of 16-bit ones.
typedef std::int32_t IntVec __attribute__((vector_size(vector_bytes)));

inline IntVec load_words(const std::int32_t* p) {
    IntVec v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}

// pair_products: in each lane the sum of the two products of its 16-bit integers.
#ifdef NST_X86
constexpr bool has_pair_products = true;
#if defined(__AVX512BW__)
inline IntVec pair_products(IntVec a, IntVec b) { return (IntVec)_mm512_madd_epi16((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
inline IntVec pair_products(IntVec a, IntVec b) { return (IntVec)_mm256_madd_epi16((__m256i)a, (__m256i)b); }
#else
inline IntVec pair_products(IntVec a, IntVec b) { return (IntVec)_mm_madd_epi16((__m128i)a, (__m128i)b); }
#endif
#else
constexpr bool has_pair_products = false;
inline IntVec pair_products(IntVec a, IntVec b) { return (a >> 16) * (b >> 16) + (a << 16 >> 16) * (b << 16 >> 16); }
#endif

constexpr std::int64_t stream_bytes = 16 << 20;  // from here on a result would push everything else out of the caches

// Whether `count` elements at p, in rows of `row`, shall be streamed.
template <class T>
inline bool can_stream(const T* p, std::int64_t count, std::int64_t row) {
    return reinterpret_cast<std::uintptr_t>(p) % vector_bytes == 0 && row % lanes<T> == 0 &&
           count * static_cast<std::int64_t>(sizeof(T)) >= stream_bytes;
}

// A bit an element says whether it is above 0: bits + at / 8 holds those of the vector at `at`, a multiple of the
// lanes, the first in the lowest bit. Vectors of less than eight lanes share a byte.
template <class T>
inline unsigned read_bits(const std::uint8_t* bits, std::int64_t at) {
    unsigned found = bits[at / 8];
    if constexpr (lanes<T> == 16) found |= static_cast<unsigned>(bits[at / 8 + 1]) << 8;
    return found >> (at % 8);
}

// v where its bit is set, else 0.
template <class T>
inline Vec<T> where_bits(const std::uint8_t* bits, std::int64_t at, Vec<T> v) {
    using I = decltype(v > v);
    I lane;
    for (int i = 0; i < lanes<T>; i++) lane[i] = 1 << i;
    const I set = (I{} + static_cast<std::remove_reference_t<decltype(lane[0])>>(read_bits<T>(bits, at))) & lane;
    return set != 0 ? v : Vec<T>{};
}

template <class T>
inline unsigned positive_lanes(Vec<T> v) {
#if defined(NST_X86) && defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_cmp_ps_mask(v, Vec<T>{}, _CMP_GT_OQ);
    else return _mm512_cmp_pd_mask(v, Vec<T>{}, _CMP_GT_OQ);
#elif defined(NST_X86) && defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return static_cast<unsigned>(_mm256_movemask_ps((__m256)(v > Vec<T>{})));
    else return static_cast<unsigned>(_mm256_movemask_pd((__m256d)(v > Vec<T>{})));
#else
    unsigned found = 0;
    for (int i = 0; i < lanes<T>; i++) found |= (v[i] > T(0) ? 1u : 0u) << i;
    return found;
#endif
}

template <class T>
inline void store_bits(std::uint8_t* bits, std::int64_t at, Vec<T> v) {
    const unsigned found = positive_lanes<T>(v);
    if constexpr (lanes<T> >= 8) {
        bits[at / 8] = static_cast<std::uint8_t>(found);
        if constexpr (lanes<T> == 16) bits[at / 8 + 1] = static_cast<std::uint8_t>(found >> 8);
    } else {
        const unsigned shift = at % 8, own = ((1u << lanes<T>)-1) << shift;
        bits[at / 8] = static_cast<std::uint8_t>((bits[at / 8] & ~own) | found << shift);
    }
}

template <class T>
inline Vec<T> relu(Vec<T> v) {
    return Vec<T>{} > v ? Vec<T>{} : v;
}

template <class I>
constexpr I min_of(I a, I b) {
    return b < a ? b : a;
}

template <class I>
constexpr I max_of(I a, I b) {
    return a < b ? b : a;
}

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace nst::NST_ISA_NS
