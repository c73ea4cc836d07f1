#include "cuda/device.h"

#include <algorithm>
#include <cstring>

namespace omni2 {
namespace {

constexpr int kDevice = 0;

}  // namespace

CudaDevice::CudaDevice(const std::string& library) : api_(load_cuda_api(library)) {
    int devices = 0;
    OMNI2_CUDA(*api_, cudaGetDeviceCount, &devices);
    if (devices == 0)
        throw CudaError("there is no CUDA device", "let CUDA_VISIBLE_DEVICES name one, or run on the CPU");
    OMNI2_CUDA(*api_, cudaDeviceGetStreamPriorityRange, &least_urgent_, &most_urgent_);
}

CudaDeviceInfo CudaDevice::info() const {
    CudaDeviceInfo info;
    CudaDeviceProperties properties{};
    OMNI2_CUDA(*api_, cudaGetDeviceProperties, &properties, kDevice);
    info.name.assign(properties.name, strnlen(properties.name, sizeof properties.name));
    OMNI2_CUDA(*api_, cudaDeviceGetAttribute, &info.capability_major, kCudaCapabilityMajor, kDevice);
    OMNI2_CUDA(*api_, cudaDeviceGetAttribute, &info.capability_minor, kCudaCapabilityMinor, kDevice);
    OMNI2_CUDA(*api_, cudaDriverGetVersion, &info.driver_version);
    OMNI2_CUDA(*api_, cudaRuntimeGetVersion, &info.runtime_version);
    return info;
}

std::unique_ptr<CudaStream> CudaDevice::stream(int priority) const {
    return std::make_unique<CudaStream>(api_, std::clamp(priority, most_urgent_, least_urgent_));
}

}  // namespace omni2
