// Python's view of random numbers and samplers: checks arguments and releases the interpreter lock.
#include <pybind11/numpy.h>

#include <cmath>
#include <limits>
#include <string>

#include "bindings/bindings.h"
#include "philox.cuh"
#include "sampling/random.h"
#include "sampling/sampling.h"

namespace py = pybind11;

namespace omni2 {
namespace {

constexpr py::ssize_t kLargestVocabulary = py::ssize_t{1} << 31;

// A C-contiguous array of exactly type T and, unless -1, of that many axes; ValueError otherwise.
template <class T>
py::array_t<T> typed_array(const py::array& array, py::ssize_t axes, const char* name, const char* description) {
    const bool contiguous = (array.flags() & py::array::c_style) != 0;
    if (!py::isinstance<py::array_t<T>>(array) || !contiguous || (axes >= 0 && array.ndim() != axes))
        throw py::value_error(std::string(name) + " must be " + description);
    return py::array_t<T>(array);
}

// A Python or numpy integer that fits T; ValueError otherwise.
template <class T>
T unsigned_integer(const py::handle& value, const char* name) {
    const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (!index) throw py::error_already_set();
    const unsigned long long converted = PyLong_AsUnsignedLongLong(index.ptr());
    const bool failed = PyErr_Occurred() != nullptr;
    if (failed) PyErr_Clear();
    if (failed || converted > std::numeric_limits<T>::max())
        throw py::value_error(std::string(name) + " must lie in [0, 2^" +
                              std::to_string(std::numeric_limits<T>::digits) + "), not " +
                              py::str(index).cast<std::string>());
    return static_cast<T>(converted);
}

DrawKey draw_key(const py::handle& seed, const py::handle& stream, const py::handle& turn, const py::handle& step) {
    return {unsigned_integer<uint64_t>(seed, "seed"), unsigned_integer<uint32_t>(stream, "stream"),
            unsigned_integer<uint32_t>(turn, "turn"), unsigned_integer<uint32_t>(step, "step")};
}

py::array_t<uint32_t> philox(const py::array& counter, const py::array& key) {
    const auto c = typed_array<uint32_t>(counter, 1, "counter", "a uint32 array of 4");
    const auto k = typed_array<uint32_t>(key, 1, "key", "a uint32 array of 2");
    if (c.size() != 4) throw py::value_error("counter must be a uint32 array of 4");
    if (k.size() != 2) throw py::value_error("key must be a uint32 array of 2");
    const Words words = philox4x32({c.at(0), c.at(1), c.at(2), c.at(3)}, {k.at(0), k.at(1)});
    py::array_t<uint32_t> result(4);
    auto out = result.mutable_unchecked<1>();
    out(0) = words.x0;
    out(1) = words.x1;
    out(2) = words.x2;
    out(3) = words.x3;
    return result;
}

template <void (*Fill)(float*, size_t, const DrawKey&)>
void fill_array(const py::array& out, const py::handle& seed, const py::handle& stream, const py::handle& turn,
                const py::handle& step) {
    auto target = typed_array<float>(out, -1, "out", "a C-contiguous float32 array");
    if (!target.writeable()) throw py::value_error("out must be writeable");
    const DrawKey key = draw_key(seed, stream, turn, step);
    const auto count = static_cast<uint64_t>(target.size());
    if (count > kWordsPerDraw) throw py::value_error("out must not hold more than 2^34 values");
    float* data = target.mutable_data();
    py::gil_scoped_release release;
    Fill(data, static_cast<size_t>(count), key);
}

py::array_t<float> logits_array(const py::array& logits) {
    auto values = typed_array<float>(logits, 1, "logits", "a C-contiguous float32 vector");
    if (values.size() == 0) throw py::value_error("logits must not be empty");
    if (values.size() >= kLargestVocabulary) throw py::value_error("logits must hold fewer than 2^31 values");
    return values;
}

// Runs choose(scores) on the penalised logits without the interpreter lock.
template <class Choose>
uint32_t choose_token(const py::array& logits, const py::array& generated, double penalty, Choose choose) {
    const auto values = logits_array(logits);
    const auto ids = typed_array<int64_t>(generated, 1, "generated", "a C-contiguous int64 vector");
    const auto factor = static_cast<float>(penalty);
    if (!(std::isfinite(factor) && factor > 0.0f)) throw py::value_error("penalty must be a finite number above 0");
    const float* data = values.data();
    const auto size = static_cast<uint32_t>(values.size());
    const int64_t* id_data = ids.data();
    const auto id_count = static_cast<size_t>(ids.size());
    py::gil_scoped_release release;
    return choose(Scores(data, size, id_data, id_count, factor));
}

uint32_t greedy_token(const py::array& logits, const py::array& generated, double penalty) {
    return choose_token(logits, generated, penalty, argmax);
}

uint32_t sample_token(const py::array& logits, const py::array& generated, double penalty, double temperature,
                      const py::handle& top_k, double top_p, const py::handle& seed, const py::handle& stream,
                      const py::handle& turn, const py::handle& step) {
    const SampleSettings settings{static_cast<float>(temperature), unsigned_integer<uint32_t>(top_k, "top_k"), top_p};
    if (!(std::isfinite(settings.temperature) && settings.temperature >= 0.0f))
        throw py::value_error("temperature must be a finite number, 0 or above");
    if (!(top_p > 0.0 && top_p <= 1.0)) throw py::value_error("top_p must lie in (0, 1]");
    const DrawKey key = draw_key(seed, stream, turn, step);
    return choose_token(logits, generated, penalty, [&](const Scores& scores) {
        return settings.temperature == 0.0f ? argmax(scores) : sample(scores, settings, key);
    });
}

}  // namespace

void bind_sampling(py::module_& m) {
    py::register_exception<NoCandidateError>(m, "NoCandidateError", PyExc_ValueError);
    m.def("philox4x32", &philox, py::arg("counter"), py::arg("key"));
    m.def("uniform", &fill_array<fill_uniform>, py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("turn"),
          py::arg("step"));
    m.def("normal", &fill_array<fill_normal>, py::arg("out"), py::arg("seed"), py::arg("stream"), py::arg("turn"),
          py::arg("step"));
    m.def("greedy", &greedy_token, py::arg("logits"), py::arg("generated"), py::arg("penalty"));
    m.def("sample", &sample_token, py::arg("logits"), py::arg("generated"), py::arg("penalty"), py::arg("temperature"),
          py::arg("top_k"), py::arg("top_p"), py::arg("seed"), py::arg("stream"), py::arg("turn"), py::arg("step"));
}

}  // namespace omni2
