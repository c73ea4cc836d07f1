// The runtime on a CUDA device, through a libcudart found when the program runs: nothing of CUDA is needed to build.
#pragma once

#include "runtime/cuda_memory.h"
#include "runtime/cuda_module.h"
#include "runtime/cuda_stream.h"
#include "runtime/runtime.h"

namespace omni2 {

// What a device says of itself.
struct CudaDeviceInfo {
    std::string name;                        // "NVIDIA L40"
    int capability_major, capability_minor;  // of the architecture: 8.9
    int multiprocessors;
    int driver_version, runtime_version;  // of CUDA, as 1000 · major + 10 · minor
};

// On the first device that CUDA_VISIBLE_DEVICES leaves.
class CudaRuntime final : public Runtime {
public:
    explicit CudaRuntime(Api api);

    const char* name() const override { return "cuda"; }
    std::unique_ptr<Stream> stream(int priority) override { return cuda_stream(priority); }
    std::unique_ptr<Event> event() override { return std::make_unique<CudaEvent>(api_); }
    void record(Event& event, Stream& stream) override;
    void wait(Stream& stream, Event& event) override;
    void copy(void* to, const void* from, size_t bytes, CopyKind kind, Stream& stream) override;
    void call(Stream& stream, std::function<void()> function) override;
    void launch(Graph& graph, Stream& stream) override;
    void notify(Stream& stream, Notice notice) override;
    void synchronize(Stream& stream) override;
    void synchronize(Event& event) override;

    // What only CUDA has.
    const std::string& library() const { return api_->library; }  // as loaded
    CudaDeviceInfo info() const;
    CudaMemoryInfo memory() const;
    std::unique_ptr<CudaStream> cuda_stream(int priority) const;
    std::unique_ptr<CudaEvent> cuda_event(bool timed) const { return std::make_unique<CudaEvent>(api_, timed); }
    std::unique_ptr<DeviceMemory> device_memory(size_t bytes) const;
    std::unique_ptr<PinnedMemory> pinned_memory(size_t bytes) const;
    std::unique_ptr<CudaModule> module(const std::string& image) const;

private:
    const Api api_;
    int least_urgent_ = 0, most_urgent_ = 0;
};

// `library` is a path of libcudart; empty: the path in OMNI2_CUDART or, where that is not set, the libcudart of the
// system (CUDA 13, then 12). Throws RuntimeFailure where there is no library, driver or device.
std::shared_ptr<CudaRuntime> cuda_runtime(const std::string& library = "");

// A graph for the CUDA runtime: a cudaGraphExec_t, which remains its maker's to destroy.
std::unique_ptr<Graph> cuda_graph(void* executable);

}  // namespace omni2
