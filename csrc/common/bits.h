// Which elements of an array are above 0, a bit each: what a fused ReLU keeps for its gradient, a 32nd of the array.
//
// Bit i % 8 of byte i / 8 belongs to element i. Every function below needs no more than that its first element begins a
// byte, and reads and writes whole bytes alone.
#pragma once

#include <cstdint>
#include <cstring>

#include "simd.h"

namespace nst::NST_ISA_NS {

// Writes the bits of elements [first, first + count) of y; first is a multiple of 8, and what follows in the last byte
// becomes 0.
template <class T>
inline void write_bits(const T* y, std::int64_t first, std::int64_t count, std::uint8_t* bits) {
    constexpr int W = lanes<T>;
    std::int64_t i = first;
    for (; i + W <= first + count; i += W) store_bits<T>(bits, i, load(y + i));
    for (; i < first + count; i++) {
        if (i % 8 == 0) bits[i / 8] = 0;
        const unsigned own = 1u << (i % 8);
        bits[i / 8] = static_cast<std::uint8_t>((bits[i / 8] & (own - 1)) | (y[i] > T(0) ? own : 0u));
    }
}

inline bool bit_at(const std::uint8_t* bits, std::int64_t i) { return bits[i / 8] >> (i % 8) & 1; }

// to[i] = from[first + i] where its bit is set, else 0; all of them where bits is null.
template <class T>
inline void copy_where(const T* from, const std::uint8_t* bits, std::int64_t first, std::int64_t count, T* to) {
    if (!bits) {
        std::memcpy(to, from + first, static_cast<std::size_t>(count) * sizeof(T));
        return;
    }
    constexpr int W = lanes<T>, step = W < 8 ? W : 8;  // a vector's bits begin a byte, or a part of it as long as they
    std::int64_t i = 0;
    for (; i < count && (first + i) % step; i++) to[i] = bit_at(bits, first + i) ? from[first + i] : T(0);
    for (; i + W <= count; i += W) store(to + i, where_bits<T>(bits, first + i, load(from + first + i)));
    for (; i < count; i++) to[i] = bit_at(bits, first + i) ? from[first + i] : T(0);
}

}  // namespace nst::NST_ISA_NS
