// A CUDA device, through a libcudart found when the program runs: nothing of CUDA is needed to build.
#pragma once

#include <memory>
#include <string>

#include "cuda/memory.h"
#include "cuda/module.h"
#include "cuda/stream.h"

namespace omni2 {

struct CudaDeviceInfo {
    std::string name;                        // "NVIDIA L40"
    int capability_major, capability_minor;  // of the architecture: 8.9
    int driver_version, runtime_version;     // of CUDA, as 1000 · major + 10 · minor
};

// The first device that CUDA_VISIBLE_DEVICES leaves. Its functions may be called from any thread.
class CudaDevice {
public:
    // `library` is a path of libcudart; empty: the path in OMNI2_CUDART or, where that is not set, the libcudart of the
    // system (CUDA 13, then 12). Throws CudaError where there is no library, driver or device.
    explicit CudaDevice(const std::string& library = "");

    const std::string& library() const { return api_->library; }  // as loaded
    CudaDeviceInfo info() const;
    CudaMemoryInfo memory() const { return memory_info(*api_); }

    std::unique_ptr<CudaStream> stream(int priority) const;  // lower is more urgent; clamped to what the device has
    std::unique_ptr<CudaEvent> event(bool timed) const { return std::make_unique<CudaEvent>(api_, timed); }
    std::unique_ptr<DeviceMemory> allocate(size_t bytes) const { return std::make_unique<DeviceMemory>(api_, bytes); }
    std::unique_ptr<PinnedMemory> pin(size_t bytes) const { return std::make_unique<PinnedMemory>(api_, bytes); }
    std::unique_ptr<CudaModule> load(const std::string& image) const {
        return std::make_unique<CudaModule>(api_, image);
    }

private:
    const Api api_;
    int least_urgent_ = 0, most_urgent_ = 0;
};

}  // namespace omni2
