// Eight sums side by side, so that no multiplication waits for the one before it; where elements are picked out, no
// cache miss waits either. Each step of a sum is one to one in the word and in the sum before, so that a change of one
// word is never lost; the rotation brings the highest bits, which a multiplication moves nowhere, down again.
#include "fingerprint.h"

#include <cstring>

namespace nst {
namespace {

constexpr std::size_t lanes = 8, word = 8;

struct Mixer {
    std::uint64_t sums[lanes] = {1, 2, 3, 4, 5, 6, 7, 8};

    static std::uint64_t mixed(std::uint64_t sum, std::uint64_t w) {
        const std::uint64_t x = sum ^ w;
        return (x << 29 | x >> 35) * 0x9E3779B97F4A7C15u;  // 2^64 / golden ratio, odd
    }
    void add(std::size_t lane, const unsigned char* from, std::size_t bytes) {
        std::uint64_t w = 0;
        std::memcpy(&w, from, bytes);
        sums[lane] = mixed(sums[lane], w);
    }
    std::uint64_t total(std::uint64_t length) const {
        std::uint64_t all = length;
        for (const std::uint64_t sum : sums) all = mixed(all, sum);
        return all;
    }
};

template <std::size_t Size>
void add_elements(Mixer& mixer, const unsigned char* data, std::size_t count, std::size_t step) {
    std::size_t lane = 0;
    for (std::size_t i = 0; i < count; i += step, lane = (lane + 1) % lanes) mixer.add(lane, data + i * Size, Size);
}

}  // namespace

std::uint64_t fingerprint(const unsigned char* data, std::size_t count, std::size_t size, std::size_t step) {
    Mixer mixer;
    if (step == 1) {
        const std::size_t bytes = count * size, whole = bytes / (lanes * word) * (lanes * word);
        for (std::size_t i = 0; i < whole; i += lanes * word)
            for (std::size_t lane = 0; lane < lanes; lane++) mixer.add(lane, data + i + lane * word, word);
        for (std::size_t i = whole; i < bytes; i += word)
            mixer.add((i - whole) / word, data + i, bytes - i < word ? bytes - i : word);
    } else if (size == 4) {
        add_elements<4>(mixer, data, count, step);
    } else if (size == 8) {
        add_elements<8>(mixer, data, count, step);
    } else {
        for (std::size_t i = 0; i < count; i += step)
            for (std::size_t at = 0; at < size; at += word)
                mixer.add(i / step % lanes, data + i * size + at, size - at < word ? size - at : word);
    }
    return mixer.total(count * size);
}

}  // namespace nst
