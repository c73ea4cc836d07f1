// Python's view of a CUDA device: memory, streams, recorded graphs, kernels. Signatures and rules are documented in
// engine/omni2_engine/_core.pyi.
//
// The interpreter lock is released around every call of CUDA's, and before an object is destroyed: both may wait for
// work that needs the lock in turn.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "cuda/device.h"

namespace py = pybind11;

namespace omni2 {
namespace {

using Address = std::uintptr_t;

// The Python classes for CudaError and OutOfMemory. They belong to the engine, which names them when it is imported.
struct ErrorTypes {
    py::object error, out_of_memory;
};

ErrorTypes& error_types() {
    static ErrorTypes* const types = new ErrorTypes;  // never destroyed: the interpreter may be gone by then
    return *types;
}

void raise_cuda_error(std::exception_ptr failure) {
    try {
        if (failure) std::rethrow_exception(failure);
    } catch (const CudaError& error) {
        const bool memory = dynamic_cast<const OutOfMemory*>(&error) != nullptr;
        const py::object& type = memory ? error_types().out_of_memory : error_types().error;
        if (!type) throw;  // a RuntimeError with the same text
        py::set_error(type, type(error.problem(), error.remedy()));
    }
}

struct CudaKernel {
    std::shared_ptr<CudaModule> module;
    CUkern_st* kernel;
};

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

// Python lets go of what it holds with the interpreter lock; CUDA may make it wait.
template <class Object>
std::shared_ptr<Object> shared(std::unique_ptr<Object> object) {
    return std::shared_ptr<Object>(object.release(), [](Object* last) {
        std::optional<Unlocked> unlocked;
        if (PyGILState_Check()) unlocked.emplace();
        delete last;
    });
}

template <class Make>
auto made_unlocked(Make make) {
    const Unlocked unlocked;
    return shared(make());
}

// The bytes of a C-contiguous array; ValueError otherwise.
py::buffer_info contiguous(const py::buffer& buffer, bool writable) {
    py::buffer_info info = buffer.request(writable);
    py::ssize_t stride = info.itemsize;
    for (py::ssize_t axis = info.ndim - 1; axis >= 0; --axis) {
        if (info.shape[axis] != 1 && info.size != 0 && info.strides[axis] != stride)
            throw py::value_error("the array must be C-contiguous");
        stride *= info.shape[axis];
    }
    return info;
}

size_t bytes_of(const py::buffer_info& info) { return static_cast<size_t>(info.size * info.itemsize); }

void upload(CudaStream& stream, Address to, const py::buffer& from) {
    const py::buffer_info info = contiguous(from, false);
    const Unlocked unlocked;
    stream.copy(pointer(to), info.ptr, bytes_of(info), CopyKind::kHostToDevice);
}

void download(CudaStream& stream, const py::buffer& to, Address from) {
    const py::buffer_info info = contiguous(to, true);
    const Unlocked unlocked;
    stream.copy(info.ptr, pointer(from), bytes_of(info), CopyKind::kDeviceToHost);
}

void copy(CudaStream& stream, Address to, Address from, size_t bytes) {
    stream.copy(pointer(to), pointer(from), bytes, CopyKind::kDeviceToDevice);
}

void copy_rows(CudaStream& stream, Address to, size_t to_pitch, Address from, size_t from_pitch, size_t width,
               size_t rows) {
    stream.copy({pointer(to), to_pitch}, {pointer(from), from_pitch}, width, rows, CopyKind::kDeviceToDevice);
}

void fill(CudaStream& stream, Address address, unsigned char byte, size_t bytes) {
    stream.fill(pointer(address), byte, bytes);
}

// The value of a kernel's parameter: an address, or the bytes of a numpy scalar or structure.
std::string argument(const py::handle& value) {
    if (PyLong_Check(value.ptr())) {
        const auto address = value.cast<std::uint64_t>();
        return std::string(reinterpret_cast<const char*>(&address), sizeof address);
    }
    if (!PyObject_CheckBuffer(value.ptr()))
        throw py::type_error("a kernel's argument must be an address (int), or a numpy scalar of its parameter's type");
    const py::buffer_info info = contiguous(py::reinterpret_borrow<py::buffer>(value), false);
    return std::string(static_cast<const char*>(info.ptr), bytes_of(info));
}

void launch(CudaStream& stream, const CudaKernel& kernel, const std::array<unsigned, 3>& grid,
            const std::array<unsigned, 3>& block, const py::sequence& arguments, size_t shared_memory) {
    std::vector<std::string> values;
    for (const py::handle value : arguments) values.push_back(argument(value));
    std::vector<void*> pointers;
    for (std::string& value : values) pointers.push_back(value.data());
    KernelCall call;
    call.kernel = kernel.kernel;
    call.grid = {grid[0], grid[1], grid[2]};
    call.block = {block[0], block[1], block[2]};
    call.shared_memory = shared_memory;
    call.arguments = pointers.data();
    const Unlocked unlocked;
    stream.launch(call);
}

// The pinned bytes as an array that keeps them.
py::array_t<std::uint8_t> array_of(const py::object& self) {
    const auto& memory = self.cast<const PinnedMemory&>();
    return py::array_t<std::uint8_t>(static_cast<py::ssize_t>(memory.bytes()),
                                     static_cast<const std::uint8_t*>(memory.begin()), self);
}

py::tuple version(int number) { return py::make_tuple(number / 1000, number % 1000 / 10); }

}  // namespace

void bind_cuda(py::module_& module) {
    py::register_exception_translator(&raise_cuda_error);
    module.def(
        "raise_cuda_errors_as",
        [](py::type error, py::type out_of_memory) { error_types() = {std::move(error), std::move(out_of_memory)}; },
        py::arg("error"), py::arg("out_of_memory"));

    const py::call_guard<Unlocked> unlocked;

    py::class_<DeviceMemory, std::shared_ptr<DeviceMemory>>(module, "DeviceMemory")
        .def_property_readonly("address", &DeviceMemory::address)
        .def_property_readonly("nbytes", &DeviceMemory::bytes);

    py::class_<PinnedMemory, std::shared_ptr<PinnedMemory>>(module, "PinnedMemory")
        .def_property_readonly("array", &array_of)
        .def_property_readonly("device_address", &PinnedMemory::device_address)
        .def_property_readonly("nbytes", &PinnedMemory::bytes);

    py::class_<CudaEvent, std::shared_ptr<CudaEvent>>(module, "CudaEvent")
        .def("synchronize", &CudaEvent::synchronize, unlocked)
        .def(
            "since", [](const CudaEvent& self, const CudaEvent& start) { return 1e-3 * self.since(start); },
            py::arg("start"), unlocked);

    py::class_<CudaGraph, std::shared_ptr<CudaGraph>>(module, "CudaGraph");

    py::class_<CudaKernel>(module, "CudaKernel");

    py::class_<CudaModule, std::shared_ptr<CudaModule>>(module, "CudaModule")
        .def(
            "kernel",
            [](const std::shared_ptr<CudaModule>& self, const std::string& name, size_t shared_memory) {
                return CudaKernel{self, self->kernel(name, shared_memory)};
            },
            py::arg("name"), py::arg("shared_memory") = 0, unlocked);

    py::class_<CudaStream, std::shared_ptr<CudaStream>>(module, "CudaStream")
        .def_property_readonly("handle", &CudaStream::handle)
        .def("upload", &upload, py::arg("to"), py::arg("source"))
        .def("download", &download, py::arg("to"), py::arg("source"))
        .def("copy", &copy, py::arg("to"), py::arg("source"), py::arg("nbytes"), unlocked)
        .def("copy_rows", &copy_rows, py::arg("to"), py::arg("to_pitch"), py::arg("source"), py::arg("source_pitch"),
             py::arg("width"), py::arg("rows"), unlocked)
        .def("fill", &fill, py::arg("address"), py::arg("byte"), py::arg("nbytes"), unlocked)
        .def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("block"), py::arg("arguments"),
             py::arg("shared_memory") = 0)
        .def("launch_graph", py::overload_cast<const CudaGraph&>(&CudaStream::launch), py::arg("graph"), unlocked)
        .def("record", &CudaStream::record, py::arg("event"), unlocked)
        .def("begin_capture", &CudaStream::begin_capture, unlocked)
        .def("end_capture", [](CudaStream& self) { return made_unlocked([&] { return self.end_capture(); }); })
        .def("synchronize", &CudaStream::synchronize, unlocked);

    py::class_<CudaDevice, std::shared_ptr<CudaDevice>>(module, "CudaDevice")
        .def(py::init([](const std::optional<std::string>& library) {
                 const Unlocked unlocked;
                 return std::make_shared<CudaDevice>(library.value_or(""));
             }),
             py::arg("library") = py::none())
        .def_property_readonly("library", &CudaDevice::library)
        .def_property_readonly("name", [](const CudaDevice& self) { return self.info().name; })
        .def_property_readonly("capability",
                               [](const CudaDevice& self) {
                                   const CudaDeviceInfo info = self.info();
                                   return py::make_tuple(info.capability_major, info.capability_minor);
                               })
        .def_property_readonly("driver_version",
                               [](const CudaDevice& self) { return version(self.info().driver_version); })
        .def_property_readonly("runtime_version",
                               [](const CudaDevice& self) { return version(self.info().runtime_version); })
        .def("memory",
             [](const CudaDevice& self) {
                 const CudaMemoryInfo info = self.memory();
                 return py::make_tuple(info.free, info.total);
             })
        .def(
            "stream",
            [](const CudaDevice& self, int priority) { return made_unlocked([&] { return self.stream(priority); }); },
            py::arg("priority") = 0)
        .def(
            "event",
            [](const CudaDevice& self, bool timed) { return made_unlocked([&] { return self.event(timed); }); },
            py::arg("timed") = false)
        .def(
            "allocate",
            [](const CudaDevice& self, size_t bytes) { return made_unlocked([&] { return self.allocate(bytes); }); },
            py::arg("nbytes"))
        .def(
            "pin", [](const CudaDevice& self, size_t bytes) { return made_unlocked([&] { return self.pin(bytes); }); },
            py::arg("nbytes"))
        .def(
            "load",
            [](const CudaDevice& self, const std::string& image) {
                return made_unlocked([&] { return self.load(image); });
            },
            py::arg("image"));
}

}  // namespace omni2
