// Sizes of this machine's caches, for choosing blocks. No result depends on them.
#pragma once

#include <cstdint>

namespace nst {

std::int64_t l2_bytes();  // of one core; 512 KiB where the system does not say

}  // namespace nst
