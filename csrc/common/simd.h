// A vector of floats or doubles, as wide as the instruction set of this build allows.
//
// One source serves every instruction set: the compiler's vector extensions give +, * and fused multiply-add
// (-ffp-contract=fast), and the tile sizes below follow from the number of registers.
#pragma once

#include <cstdint>

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

constexpr std::int64_t stream_bytes = 16 << 20;  // from here on a result would push everything else out of the caches

// Whether `count` elements at p, in rows of `row`, shall be streamed.
template <class T>
inline bool can_stream(const T* p, std::int64_t count, std::int64_t row) {
    return reinterpret_cast<std::uintptr_t>(p) % vector_bytes == 0 && row % lanes<T> == 0 &&
           count * static_cast<std::int64_t>(sizeof(T)) >= stream_bytes;
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
