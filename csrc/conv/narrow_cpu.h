// Maps with few channels, a network's first layer: a product of gathered patches would spend its time on gathering, and
// in the gradient of the input fill only a few of a panel's columns.
#pragma once

#include "conv.h"

namespace nst::NST_ISA_NS {

constexpr std::int64_t narrow_channels = 4;  // up to here

// Shapes as in conv.h; bias is padded to panels.
template <class T>
void forward_narrow(const T* x, const T* w, const T* bias, const ConvShape& s, bool relu, T* y, std::uint8_t* positive);

template <class T>
void backward_input_narrow(const T* dy, const std::uint8_t* positive, const T* w, const ConvShape& s, T* dx);

}  // namespace nst::NST_ISA_NS
