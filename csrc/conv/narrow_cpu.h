// The gradient of the input where the input has few channels: see narrow_cpu.cpp.
#pragma once

#include "conv.h"

namespace nst::NST_ISA_NS {

// dx: (n, h, w, c); dy and active (null, or the forward result): (n, p, q, k); w: (k, r, s, c).
template <class T>
void backward_input_narrow(const T* dy, const T* active, const T* w, const ConvShape& s, T* dx);

}  // namespace nst::NST_ISA_NS
