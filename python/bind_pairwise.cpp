#include "../csrc/pairwise/pairwise.h"
#include "bindings.h"
#include "convert.h"

namespace nst {
namespace {

template <class T>
PairwiseShape shape_of(const Array<T>& a, const Array<T>& b) {
    expect_rank(a, 2, "a");
    input(b, {b.ndim() == 2 ? b.shape(0) : 0, a.shape(1)}, "b");
    return {a.shape(0), b.shape(0), a.shape(1)};
}

template <class T>
void forward(const Array<T>& a, const Array<T>& b, Array<T>& out) {
    const PairwiseShape s = shape_of(a, b);
    T* to = output(out, {s.rows, s.columns}, "out");
    const T *ap = a.data(), *bp = b.data();
    py::gil_scoped_release release;
    NST_CALL(pairwise_sqdist_forward_cpu<T>(ap, bp, s, to));
}

// da, db: None where the gradient is not wanted.
template <class T>
void backward(const Array<T>& a, const Array<T>& b, const Array<T>& g, const py::object& da, const py::object& db) {
    const PairwiseShape s = shape_of(a, b);
    const T* gp = input(g, {s.rows, s.columns}, "g");
    const auto wanted = [&](const py::object& o, py::ssize_t rows, const char* name) -> T* {
        if (o.is_none()) return nullptr;
        if (!py::isinstance<Array<T>>(o)) throw std::invalid_argument("native kernel: a gradient has the wrong type");
        auto array = py::reinterpret_borrow<Array<T>>(o);
        return output(array, {rows, s.depth}, name);
    };
    T* to_a = wanted(da, s.rows, "da");
    T* to_b = wanted(db, s.columns, "db");
    const T *ap = a.data(), *bp = b.data();
    py::gil_scoped_release release;
    NST_CALL(pairwise_sqdist_backward_cpu<T>(ap, bp, gp, s, to_a, to_b));
}

template <class T>
void nearest(const Array<T>& q, const Array<T>& p, Array<T>& distances, Array<std::int64_t>& indices) {
    const PairwiseShape s = shape_of(q, p);
    expect_rank(distances, 2, "distances");
    const py::ssize_t k = distances.shape(1);
    if (k < 1 || k > s.columns) throw std::invalid_argument("native kernel: k lies outside 1 .. points");
    T* to = output(distances, {s.rows, k}, "distances");
    std::int64_t* at = output(indices, {s.rows, k}, "indices");
    const T *qp = q.data(), *pp = p.data();
    py::gil_scoped_release release;
    NST_CALL(nearest_forward_cpu<T>(qp, pp, s, k, to, at));
}

template <class T>
void bind(py::module_& m) {
    m.def("pairwise_sqdist_forward_cpu", &forward<T>, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("out").noconvert());
    m.def("pairwise_sqdist_backward_cpu", &backward<T>, py::arg("a").noconvert(), py::arg("b").noconvert(),
          py::arg("g").noconvert(), py::arg("da"), py::arg("db"));
    m.def("nearest_forward_cpu", &nearest<T>, py::arg("q").noconvert(), py::arg("p").noconvert(),
          py::arg("distances").noconvert(), py::arg("indices").noconvert());
}

}  // namespace

void bind_pairwise(py::module_& m) {
    bind<float>(m);
    bind<double>(m);
}

}  // namespace nst
