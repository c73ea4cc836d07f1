// A CUDA device: the library it is found in, memory, rows, captured graphs, kernels, times, errors. On the stand-in
// libcudart, whose device memory the host cannot read.
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "check.h"
#include "cuda/device.h"
#include "fake_cudart.h"
#include "threads.h"

using namespace omni2;
using namespace omni2::test;

namespace {

constexpr int kMemoryAllocation = 2, kInsufficientDriver = 35, kIllegalAddress = 700, kNotSupported = 900;

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

CUstream_st* fake(const CudaStream& stream) { return reinterpret_cast<CUstream_st*>(stream.handle()); }

std::unique_ptr<CudaDevice> fresh() {
    fake_cuda_reset();
    return std::make_unique<CudaDevice>(FAKE_CUDART);
}

// Holds the stream until the gate is opened.
void wait_at(Gate& gate, const CudaStream& stream) {
    fake_cuda_call(fake(stream), [](void* where) { static_cast<Gate*>(where)->wait(); }, &gate);
}

class Variable {  // an environment variable, for a while
public:
    Variable(const char* name, const char* value) : name_(name) { setenv(name, value, 1); }
    ~Variable() { unsetenv(name_); }

private:
    const char* name_;
};

void* at(std::uintptr_t address, size_t offset = 0) { return reinterpret_cast<void*>(address + offset); }

float* floats(const DeviceMemory& memory) {
    return static_cast<float*>(fake_cuda_contents(at(memory.address()), memory.bytes()));
}

// y[i] += x[i] · factor, as a kernel has its parameters: float* y, const float* x, float factor, int count
void add_scaled(const unsigned* grid, const unsigned* block, size_t, void** arguments) {
    float* const y = *static_cast<float**>(arguments[0]);
    const float* const x = *static_cast<float**>(arguments[1]);
    const float factor = *static_cast<float*>(arguments[2]);
    const int count = *static_cast<int*>(arguments[3]);
    for (unsigned i = 0; i < grid[0] * block[0]; ++i)
        if (static_cast<int>(i) < count) y[i] += x[i] * factor;
}

constexpr size_t kSizes[] = {sizeof(void*), sizeof(void*), sizeof(float), sizeof(int)};
const std::string kImage = "\x7f" "ELF and so on";

struct Scaling {  // a launch of add_scaled on `count` values
    Scaling(const CudaModule& module, const DeviceMemory& y, const DeviceMemory& x, float factor)
        : to(at(y.address())), from(at(x.address())), factor(factor), count(static_cast<int>(y.bytes() / 4)) {
        call.kernel = module.kernel("add_scaled");
        call.grid = {1};
        call.block = {32};
        call.arguments = arguments;
    }

    void *to, *from;
    float factor;
    int count;
    void* arguments[4] = {&to, &from, &factor, &count};
    KernelCall call;
};

}  // namespace

TEST("a device says what it is") {
    const auto device = fresh();
    fake_cuda_set_capability(12, 0);
    const CudaDeviceInfo info = device->info();
    CHECK_EQUAL(info.name, std::string("a device that is none"));
    CHECK_EQUAL(info.capability_major, 12);
    CHECK_EQUAL(info.capability_minor, 0);
    CHECK_EQUAL(info.driver_version, 13000);
}

TEST("a library that is not there is named, with what to do") {
    const auto error = CHECK_THROWS(CudaError, CudaDevice("/nowhere/libcudart.so"));
    CHECK(contains(error.problem(), "/nowhere/libcudart.so"));
    CHECK(contains(error.remedy(), "OMNI2_CUDART"));
    CHECK_EQUAL(std::string(error.what()), error.problem() + " — " + error.remedy());
}

TEST("a library that is not CUDA's is refused by the function it lacks") {
    const auto error = CHECK_THROWS(CudaError, CudaDevice("libstdc++.so.6"));
    CHECK_EQUAL(error.problem(), std::string("libstdc++.so.6 has no function cudaGetDeviceCount"));
}

TEST("OMNI2_CUDART names the library where no other is given") {
    fake_cuda_reset();
    const Variable chosen("OMNI2_CUDART", FAKE_CUDART);
    CHECK_EQUAL(CudaDevice().library(), std::string(FAKE_CUDART));
    CHECK_THROWS(CudaError, CudaDevice("/nowhere/libcudart.so"));
}

TEST("a machine without a driver or a device is told so") {
    fake_cuda_reset();
    fake_cuda_refuse_next("cudaGetDeviceCount", kInsufficientDriver);
    const auto driver = CHECK_THROWS(CudaError, CudaDevice(FAKE_CUDART));
    CHECK_EQUAL(driver.problem(),
                std::string("cudaGetDeviceCount failed with cudaErrorInsufficientDriver (35): an injected error"));
    CHECK(contains(driver.remedy(), "driver"));
    fake_cuda_set_devices(0);
    const auto none = CHECK_THROWS(CudaError, CudaDevice(FAKE_CUDART));
    CHECK_EQUAL(none.problem(), std::string("there is no CUDA device"));
    CHECK(contains(none.remedy(), "CUDA_VISIBLE_DEVICES"));
}

TEST("priorities are clamped to what the device has, which refuses others") {
    const auto device = fresh();
    for (const int priority : {-100, -2, 0, 3}) CHECK(device->stream(priority)->handle() != 0);
}

TEST("streams and events that CUDA refuses leave nothing behind, and others are released") {
    const auto device = fresh();
    fake_cuda_refuse_next("cudaStreamCreateWithPriority", kMemoryAllocation);
    CHECK_THROWS(CudaError, device->stream(0));
    fake_cuda_refuse_next("cudaEventCreateWithFlags", kMemoryAllocation);
    CHECK_THROWS(CudaError, device->event(false));
    for (int i = 0; i < 20; ++i) {
        const auto stream = device->stream(0);
        const auto event = device->event(false);
        event->synchronize();  // never recorded
        stream->record(*event);
        event->synchronize();
    }
    CHECK_EQUAL(fake_cuda_live_streams(), 0);
    CHECK_EQUAL(fake_cuda_live_events(), 0);
}

TEST("a stream is destroyed when all on it has run") {
    const auto device = fresh();
    const auto host = device->pin(4);
    const auto memory = device->allocate(4);
    auto stream = device->stream(0);
    Gate gate;
    wait_at(gate, *stream);
    stream->fill(at(memory->address()), 7, 4);
    stream->copy(host->begin(), at(memory->address()), 4, CopyKind::kDeviceToHost);
    std::thread opening([&] { gate.open(); });
    stream.reset();
    opening.join();
    CHECK_EQUAL(static_cast<char*>(host->begin())[3], char{7});
}

TEST("memory is counted, given back, and refused with what is left") {
    const auto device = fresh();
    const size_t before = fake_cuda_live_bytes();
    fake_cuda_set_memory(before + (3 << 20));
    {
        const auto memory = device->allocate(2 << 20);
        CHECK_EQUAL(device->memory().free, size_t{1} << 20);
        const auto error = CHECK_THROWS(OutOfMemory, device->allocate(2 << 20));
        CHECK(contains(error.problem(), "no 0.00 GiB left"));
        CHECK(contains(error.remedy(), "fewer sessions"));
        CHECK(device->allocate(1 << 20)->address() != 0);  // the refusal left no error behind
    }
    CHECK_EQUAL(fake_cuda_live_bytes(), before);
    CHECK_EQUAL(fake_cuda_damaged_allocations(), 0);
}

TEST("pinned memory that the device cannot reach is given back") {
    const auto device = fresh();
    const int before = fake_cuda_live_pinned();
    fake_cuda_refuse_next("cudaHostGetDevicePointer", 1);
    CHECK_THROWS(CudaError, device->pin(100));
    CHECK_EQUAL(fake_cuda_live_pinned(), before);
    const auto pinned = device->pin(100);
    CHECK_EQUAL(pinned->device_address(), reinterpret_cast<std::uintptr_t>(pinned->begin()));
    CHECK_EQUAL(fake_cuda_live_pinned(), before + 1);
}

TEST("bytes go to the device and back, in rows where they lie apart") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    const auto wide = device->allocate(4 * 10), narrow = device->allocate(4 * 3);
    const auto host = device->pin(4 * 10);
    auto* const values = static_cast<char*>(host->begin());
    for (int i = 0; i < 40; ++i) values[i] = static_cast<char>(i);
    stream->copy(at(wide->address()), values, 40, CopyKind::kHostToDevice);
    stream->copy({at(narrow->address()), 3}, {at(wide->address(), 5), 10}, 3, 4, CopyKind::kDeviceToDevice);
    stream->fill(at(wide->address(), 20), 7, 20);
    stream->synchronize();
    std::vector<int> result;
    stream->copy(values, at(narrow->address()), 12, CopyKind::kDeviceToHost);
    stream->copy(values + 12, at(wide->address(), 16), 8, CopyKind::kDeviceToHost);
    stream->synchronize();
    for (int i = 0; i < 20; ++i) result.push_back(values[i]);
    CHECK_EQUAL(result, (std::vector<int>{5, 6, 7, 15, 16, 17, 25, 26, 27, 35, 36, 37, 16, 17, 18, 19, 7, 7, 7, 7}));
}

TEST("a copy beyond an allocation, or the wrong way, is refused at once") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    const auto memory = device->allocate(10), other = device->allocate(10);
    char host[20] = {};
    CHECK_THROWS(CudaError, stream->copy(at(memory->address(), 1), host, 10, CopyKind::kHostToDevice));
    CHECK_THROWS(CudaError, stream->copy(host, at(memory->address()), 10, CopyKind::kHostToDevice));
    CHECK_THROWS(CudaError,
                 stream->copy({at(memory->address()), 4}, {host, 4}, 3, 3, CopyKind::kHostToDevice));
    CHECK_THROWS(CudaError, stream->fill(at(other->address(), 5), 0, 6));
    stream->copy(at(memory->address()), host, 10, CopyKind::kHostToDevice);
    stream->synchronize();
}

TEST("work on memory that was freed meanwhile loses the device") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    auto memory = device->allocate(10);
    char host[10] = {};
    Gate gate;
    wait_at(gate, *stream);
    stream->copy(at(memory->address()), host, 10, CopyKind::kHostToDevice);
    memory.reset();
    gate.open();
    const auto error = CHECK_THROWS(CudaError, stream->synchronize());
    CHECK(contains(error.problem(), "cudaErrorIllegalAddress (700): an illegal memory access was encountered"));
    CHECK(contains(error.remedy(), "start the process again"));
}

TEST("a recorded graph does in every launch what was enqueued, and nothing before") {
    const auto device = fresh();
    fake_cuda_add_kernel("add_scaled", add_scaled, kSizes, 4);
    const int graphs = fake_cuda_live_graphs(), modules = fake_cuda_live_modules();
    {
        const auto module = device->load(kImage);
        const auto stream = device->stream(0);
        const auto x = device->allocate(16), y = device->allocate(16);
        const auto input = device->pin(16), output = device->pin(16);
        auto* const in = static_cast<float*>(input->begin());
        auto* const out = static_cast<float*>(output->begin());
        stream->fill(at(y->address()), 0, 16);
        const Scaling scaling(*module, *y, *x, 2);
        stream->begin_capture();
        stream->copy(at(x->address()), in, 16, CopyKind::kHostToDevice);
        stream->launch(scaling.call);
        stream->copy(out, at(y->address()), 16, CopyKind::kDeviceToHost);
        const auto graph = stream->end_capture();
        stream->synchronize();
        CHECK(std::isnan(out[0]));
        CHECK_EQUAL(floats(*y)[3], 0.0f);
        fake_cuda_log_begin();
        for (const float value : {1.0f, 10.0f}) {
            in[3] = value;  // arguments are kept as they were, what they point to is read anew
            stream->launch(*graph);
            stream->synchronize();
        }
        CHECK_EQUAL(out[3], 22.0f);
        std::string lines;
        for (int launch = 0; launch < 2; ++launch)
            for (const char* what : {"graph", "copy host to device 16", "kernel add_scaled", "copy device to host 16"})
                lines += std::string(what) + "\n";
        std::string log = fake_cuda_log();
        const std::string number = log.substr(0, log.find(' ') + 1);
        for (size_t place = 0; (place = log.find(number, place)) != std::string::npos;) log.erase(place, number.size());
        CHECK_EQUAL(log, lines);
    }
    CHECK_EQUAL(fake_cuda_live_graphs(), graphs);
    CHECK_EQUAL(fake_cuda_live_modules(), modules);
}

TEST("what cannot be recorded ends the recording with its error, and the stream goes on") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    const auto memory = device->allocate(16);
    stream->begin_capture();
    stream->fill(at(memory->address()), 1, 16);
    const auto refused = CHECK_THROWS(CudaError, device->allocate(16));  // as CUDA has it, in this mode
    CHECK(contains(refused.problem(), "cudaErrorStreamCaptureUnsupported"));
    const auto error = CHECK_THROWS(CudaError, stream->end_capture());
    CHECK(contains(error.problem(), "cudaErrorStreamCaptureInvalidated"));
    CHECK(contains(error.remedy(), "without a CUDA graph"));
    stream->fill(at(memory->address()), 0, 16);
    stream->synchronize();
    CHECK_EQUAL(floats(*memory)[0], 0.0f);

    stream->begin_capture();
    CHECK_THROWS(std::logic_error, stream->synchronize());
    CHECK_THROWS(std::logic_error, stream->begin_capture());
    stream->end_capture();
    CHECK_THROWS(std::logic_error, stream->end_capture());
}

TEST("memory and modules let go of during a recording are given back behind it") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    auto memory = device->allocate(16);
    auto pinned = device->pin(16);
    auto module = device->load(kImage);
    const int allocations = fake_cuda_live_allocations(), pinned_before = fake_cuda_live_pinned();
    stream->begin_capture();
    memory.reset();
    pinned.reset();
    module.reset();
    CHECK_EQUAL(fake_cuda_live_allocations(), allocations);
    CHECK(stream->end_capture() != nullptr);
    CHECK_EQUAL(fake_cuda_live_allocations(), allocations - 1);
    CHECK_EQUAL(fake_cuda_live_pinned(), pinned_before - 1);
}

TEST("others allocate and wait while a stream is recorded") {
    const auto device = fresh();
    const auto stream = device->stream(0), other = device->stream(0);
    stream->begin_capture();
    std::thread([&] {
        const auto memory = device->allocate(16);
        other->fill(at(memory->address()), 0, 16);
        other->synchronize();
    }).join();
    stream->end_capture();
}

TEST("a graph that CUDA refuses to make leaves nothing behind") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    const int before = fake_cuda_live_graphs();
    stream->begin_capture();
    fake_cuda_refuse_next("cudaGraphInstantiate", kMemoryAllocation);
    CHECK_THROWS(CudaError, stream->end_capture());
    fake_cuda_refuse_next("cudaStreamBeginCapture", kNotSupported);
    CHECK_THROWS(CudaError, stream->begin_capture());
    stream->synchronize();
    CHECK_EQUAL(fake_cuda_live_graphs(), before);
}

TEST("a stream may be let go of while it is recorded") {
    const auto device = fresh();
    auto stream = device->stream(0);
    stream->begin_capture();
    stream.reset();
    device->stream(0)->synchronize();
}

TEST("kernels are found by name, in images of the device's kind") {
    const auto device = fresh();
    fake_cuda_add_kernel("add_scaled", add_scaled, kSizes, 4);
    const auto error = CHECK_THROWS(CudaError, device->load("int main() {}"));
    CHECK(contains(error.problem(), "cudaErrorInvalidKernelImage"));
    const auto module = device->load(kImage);
    CHECK(contains(CHECK_THROWS(CudaError, module->kernel("another")).problem(), "there is no kernel another"));
    CHECK(module->kernel("add_scaled", 64 << 10) != nullptr);
    CHECK_THROWS(CudaError, module->kernel("add_scaled", 200 << 10));
}

TEST("a kernel that is given freed memory loses the device, once it runs") {
    const auto device = fresh();
    fake_cuda_add_kernel("add_scaled", add_scaled, kSizes, 4);
    const auto module = device->load(kImage);
    const auto stream = device->stream(0);
    const auto y = device->allocate(16);
    auto x = device->allocate(16);
    const Scaling scaling(*module, *y, *x, 1);
    x.reset();
    stream->launch(scaling.call);
    const auto error = CHECK_THROWS(CudaError, stream->synchronize());
    CHECK(contains(error.problem(), "cudaErrorIllegalAddress (700): an illegal memory access was encountered"));
    CHECK(contains(error.remedy(), "start the process again"));
}

TEST("a kernel that writes beyond its memory is noticed") {
    const auto device = fresh();
    fake_cuda_add_kernel("add_scaled", add_scaled, kSizes, 4);
    const auto module = device->load(kImage);
    const auto stream = device->stream(0);
    const auto x = device->allocate(32);
    auto y = device->allocate(16);
    Scaling scaling(*module, *y, *x, 1);
    scaling.count = 5;
    const int before = fake_cuda_damaged_allocations();
    stream->launch(scaling.call);
    stream->synchronize();
    y.reset();
    CHECK_EQUAL(fake_cuda_damaged_allocations(), before + 1);
}

TEST("events that are timed say how long the device took between them") {
    const auto device = fresh();
    const auto stream = device->stream(0);
    const auto start = device->event(true), stop = device->event(true);
    CHECK_THROWS(CudaError, stop->since(*start));
    stream->record(*start);
    fake_cuda_delay(fake(*stream), 20'000);
    stream->record(*stop);
    stop->synchronize();
    CHECK_EQUAL(stop->since(*start), 20.0f);
}

TEST("a device that is lost refuses everything, and gives back what it held") {
    const auto device = fresh();
    const int pinned_before = fake_cuda_live_pinned(), graphs = fake_cuda_live_graphs();
    const size_t bytes_before = fake_cuda_live_bytes();
    {
        const auto stream = device->stream(0);
        const auto memory = device->allocate(16);
        const auto pinned = device->pin(16);
        stream->begin_capture();
        const auto graph = stream->end_capture();
        fake_cuda_fault(fake(*stream), kIllegalAddress);
        CHECK_THROWS(CudaError, stream->synchronize());
        CHECK_THROWS(CudaError, device->allocate(16));
        CHECK_THROWS(CudaError, device->pin(16));
        CHECK_THROWS(CudaError, device->memory());
        CHECK_THROWS(CudaError, stream->begin_capture());
        CHECK_THROWS(CudaError, stream->launch(*graph));
        CHECK_THROWS(CudaError, stream->fill(at(memory->address()), 0, 16));
    }
    CHECK_EQUAL(fake_cuda_live_bytes(), bytes_before);
    CHECK_EQUAL(fake_cuda_live_pinned(), pinned_before);
    CHECK_EQUAL(fake_cuda_live_graphs(), graphs);
}
