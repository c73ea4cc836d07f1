#include "runtime/cuda_runtime.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <utility>

#include "runtime/own.h"

namespace omni2 {
namespace {

constexpr int kDevice = 0;

}  // namespace

CudaRuntime::CudaRuntime(Api api) : api_(std::move(api)) {
    int devices = 0;
    OMNI2_CUDA(*api_, cudaGetDeviceCount, &devices);
    if (devices == 0)
        throw RuntimeFailure("there is no CUDA device", "let CUDA_VISIBLE_DEVICES name one, or run on the CPU");
    OMNI2_CUDA(*api_, cudaDeviceGetStreamPriorityRange, &least_urgent_, &most_urgent_);
}

void CudaRuntime::record(Event& event, Stream& stream) { own<CudaStream>(stream).record(own<CudaEvent>(event)); }
void CudaRuntime::wait(Stream& stream, Event& event) { own<CudaStream>(stream).wait(own<CudaEvent>(event)); }

void CudaRuntime::copy(void* to, const void* from, size_t bytes, CopyKind kind, Stream& stream) {
    own<CudaStream>(stream).copy(to, from, bytes, kind);
}

void CudaRuntime::call(Stream& stream, std::function<void()> function) {
    own<CudaStream>(stream).call(std::move(function));
}

void CudaRuntime::launch(Graph& graph, Stream& stream) { own<CudaStream>(stream).launch(own<CudaGraph>(graph)); }
void CudaRuntime::notify(Stream& stream, Notice notice) { own<CudaStream>(stream).notify(std::move(notice)); }
void CudaRuntime::synchronize(Stream& stream) { own<CudaStream>(stream).synchronize(); }
void CudaRuntime::synchronize(Event& event) { own<CudaEvent>(event).synchronize(); }

CudaDeviceInfo CudaRuntime::info() const {
    CudaDeviceInfo info;
    alignas(std::max_align_t) char properties[kCudaDevicePropRoom] = {};  // of whichever version: the name comes first
    OMNI2_CUDA(*api_, cudaGetDeviceProperties, reinterpret_cast<cudaDeviceProp*>(properties), kDevice);
    info.name.assign(properties, strnlen(properties, kCudaDeviceNameBytes));
    OMNI2_CUDA(*api_, cudaDeviceGetAttribute, &info.capability_major, kCudaCapabilityMajor, kDevice);
    OMNI2_CUDA(*api_, cudaDeviceGetAttribute, &info.capability_minor, kCudaCapabilityMinor, kDevice);
    OMNI2_CUDA(*api_, cudaDeviceGetAttribute, &info.multiprocessors, kCudaMultiprocessors, kDevice);
    OMNI2_CUDA(*api_, cudaDriverGetVersion, &info.driver_version);
    OMNI2_CUDA(*api_, cudaRuntimeGetVersion, &info.runtime_version);
    return info;
}

CudaMemoryInfo CudaRuntime::memory() const { return memory_info(*api_); }

std::unique_ptr<CudaStream> CudaRuntime::cuda_stream(int priority) const {
    return std::make_unique<CudaStream>(api_, std::clamp(priority, most_urgent_, least_urgent_));
}

std::unique_ptr<DeviceMemory> CudaRuntime::device_memory(size_t bytes) const {
    return std::make_unique<DeviceMemory>(api_, bytes);
}

std::unique_ptr<PinnedMemory> CudaRuntime::pinned_memory(size_t bytes) const {
    return std::make_unique<PinnedMemory>(api_, bytes);
}

std::unique_ptr<CudaModule> CudaRuntime::module(const std::string& image) const {
    return std::make_unique<CudaModule>(api_, image);
}

std::shared_ptr<CudaRuntime> cuda_runtime(const std::string& library) {
    return std::make_shared<CudaRuntime>(load_cuda_api(library));
}

std::unique_ptr<Graph> cuda_graph(void* executable) {
    return std::make_unique<CudaGraph>(static_cast<CUgraphExec_st*>(executable));
}

}  // namespace omni2
