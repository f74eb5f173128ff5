#include "../csrc/triplet/triplet.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
TripletRows<T> rows_of(const Array<T>& a, const Array<T>& p, const Array<T>& n) {
    expect_rank(a, 2, "anchors");
    const T* positives = input(p, {a.shape(0), a.shape(1)}, "positives");
    const T* negatives = input(n, {a.shape(0), a.shape(1)}, "negatives");
    return {a.data(), positives, negatives, a.shape(0), a.shape(1)};
}

template <class T>
void forward(const Array<T>& a, const Array<T>& p, const Array<T>& n, T margin, Array<T>& losses) {
    const TripletRows<T> rows = rows_of(a, p, n);
    T* to = output(losses, {rows.count}, "losses");
    py::gil_scoped_release release;
    NST_CALL(triplet_loss_forward_cpu<T>(rows, margin, to));
}

template <class T>
void backward(const Array<T>& a, const Array<T>& p, const Array<T>& n, const Array<T>& losses, T scale, Array<T>& da,
              Array<T>& dp, Array<T>& dn) {
    const TripletRows<T> rows = rows_of(a, p, n);
    const T* hinge = input(losses, {rows.count}, "losses");
    T* to_a = output(da, {rows.count, rows.depth}, "da");
    T* to_p = output(dp, {rows.count, rows.depth}, "dp");
    T* to_n = output(dn, {rows.count, rows.depth}, "dn");
    py::gil_scoped_release release;
    NST_CALL(triplet_loss_backward_cpu<T>(rows, hinge, scale, to_a, to_p, to_n));
}

// dz: None where no gradient is wanted. Gives (sum of the losses, triplets, active).
template <class T>
py::tuple batch_forward(const Array<T>& z, const Array<std::int32_t>& classes, T margin, int mining,
                        const py::object& dz) {
    expect_rank(z, 2, "z");
    const std::int64_t batch = z.shape(0), depth = z.shape(1);
    const std::int32_t* of = input(classes, {batch}, "classes");
    for (std::int64_t i = 0; i < batch; i++)
        if (of[i] < 0 || of[i] >= batch) throw std::invalid_argument("native kernel: classes lie in 0 .. batch - 1");
    if (mining < 0 || mining > 2) throw std::invalid_argument("native kernel: mining is 0, 1 or 2");
    T* to = nullptr;
    if (!dz.is_none()) {
        if (!py::isinstance<Array<T>>(dz)) throw std::invalid_argument("native kernel: dz has the wrong type");
        auto array = py::reinterpret_borrow<Array<T>>(dz);
        to = output(array, {batch, depth}, "dz");
    }
    const T* from = z.data();
    TripletSum sum{};
    {
        py::gil_scoped_release release;
        NST_CALL(
            batch_triplet_loss_forward_cpu<T>(from, of, batch, depth, margin, static_cast<Mining>(mining), to, &sum));
    }
    return py::make_tuple(sum.loss, sum.triplets, sum.active);
}

template <class T>
void bind(py::module_& m) {
    m.def("triplet_loss_forward_cpu", &forward<T>, py::arg("anchors").noconvert(), py::arg("positives").noconvert(),
          py::arg("negatives").noconvert(), py::arg("margin"), py::arg("losses").noconvert());
    m.def("triplet_loss_backward_cpu", &backward<T>, py::arg("anchors").noconvert(), py::arg("positives").noconvert(),
          py::arg("negatives").noconvert(), py::arg("losses").noconvert(), py::arg("scale"), py::arg("da").noconvert(),
          py::arg("dp").noconvert(), py::arg("dn").noconvert());
    m.def("batch_triplet_loss_forward_cpu", &batch_forward<T>, py::arg("z").noconvert(), py::arg("classes").noconvert(),
          py::arg("margin"), py::arg("mining"), py::arg("dz"));
}

}  // namespace

void bind_triplet(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
