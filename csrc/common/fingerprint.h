// A number that tells whether memory was changed.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nst {

// Of `count` elements of `size` bytes, every `step`-th one. A change of one of them always changes the number.
std::uint64_t fingerprint(const unsigned char* data, std::size_t count, std::size_t size, std::size_t step);

}  // namespace nst
