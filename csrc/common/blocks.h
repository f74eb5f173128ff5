// Blocks of memory for results and working space, kept when they are freed and handed out again: pages that this
// process has touched before cost nothing, fresh ones cost as much as the arithmetic of a memory-bound kernel.
//
// Free memory is a list of address ranges. A block is cut from the smallest range that holds it, and a freed block
// joins the ranges beside it, so that blocks of any sizes share the same memory:
//
//   |  in use  |   free   | in use |      free      |        ranges start and end at multiples of block_step;
//              ^cut here first                               whole huge pages of them can go back to the system
//
// How much is kept: outside of a KeepBlocks scope at most kept_limit; inside, so much that what is held never exceeds
// nine eighths of the most that was in use at once. The ranges that lay unused longest go back first.
//
// Safe to call from any thread and after a fork.
#pragma once

#include <cstddef>

namespace nst {

constexpr std::size_t block_alignment = 64;
constexpr std::size_t block_step = std::size_t{64} << 10;  // smaller requests are left to operator new
constexpr std::size_t huge_page = std::size_t{2} << 20;
constexpr std::size_t kept_limit = std::size_t{64} << 20;

void* take_block(std::size_t bytes);                   // std::bad_alloc when there is no memory
void give_block(void* p, std::size_t bytes) noexcept;  // bytes as they were asked for

struct BlockCount {
    std::size_t used, kept;  // bytes handed out, and bytes free but not given back to the system
};
BlockCount count_blocks();

void keep_blocks(bool begin);  // begins a scope, or ends one; scopes may overlap
void give_back_blocks();       // all that is kept, as far as whole huge pages are free; the most in use counts anew

}  // namespace nst
