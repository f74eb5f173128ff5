// Which instruction set a hot kernel runs with.
//
// A hot file (csrc/<family>/*_cpu.cpp) is compiled once per instruction set, each time into a namespace of its own
// (NST_ISA_NS); NST_CALL picks one at run time. Everything that a hot file defines, templates included, must live
// in NST_ISA_NS: a function shared by two builds would be merged by the linker and could then contain instructions
// that the machine lacks. tests/integration/test_symbols.py holds the object files to this.
#pragma once

#include "parallel.h"

namespace nst {

enum class Isa { base, avx2, avx512 };

Isa active_isa();               // chosen on first use, or by set_isa
bool isa_available(Isa isa);    // compiled in, and the processor has it
void set_isa(Isa isa);          // the caller has checked isa_available
const char* isa_name(Isa isa);  // "base", "avx2", "avx512"

}  // namespace nst

#ifdef NST_X86
#define NST_FOR_EACH_ISA(DECLARE) DECLARE(isa_base) DECLARE(isa_avx2) DECLARE(isa_avx512)
#define NST_CALL(...)                                                       \
    do {                                                                    \
        const ::nst::PinnedThreads pinned;                                  \
        switch (::nst::active_isa()) {                                      \
            case ::nst::Isa::avx512: ::nst::isa_avx512::__VA_ARGS__; break; \
            case ::nst::Isa::avx2: ::nst::isa_avx2::__VA_ARGS__; break;     \
            default: ::nst::isa_base::__VA_ARGS__; break;                   \
        }                                                                   \
    } while (0)
#else
#define NST_FOR_EACH_ISA(DECLARE) DECLARE(isa_base)
#define NST_CALL(...)                      \
    do {                                   \
        const ::nst::PinnedThreads pinned; \
        ::nst::isa_base::__VA_ARGS__;      \
    } while (0)
#endif
