#include "cuda/memory.h"

#include <algorithm>
#include <cstdio>
#include <string>
#include <utility>

namespace omni2 {
namespace {

std::string gibibytes(size_t bytes) {
    char text[32];
    std::snprintf(text, sizeof text, "%.2f GiB", static_cast<double>(bytes) / (1 << 30));
    return text;
}

}  // namespace

CudaMemoryInfo memory_info(const CudaApi& api) {
    CudaMemoryInfo info{};
    OMNI2_CUDA(api, cudaMemGetInfo, &info.free, &info.total);
    return info;
}

DeviceMemory::DeviceMemory(Api api, size_t bytes) : api_(std::move(api)), bytes_(bytes) {
    const CudaStatus status = api_->cudaMalloc(&begin_, std::max<size_t>(bytes, 1));
    if (status == kCudaOutOfMemory) {
        ignore(*api_, status);
        const CudaMemoryInfo info = memory_info(*api_);
        throw OutOfMemory("the device has no " + gibibytes(bytes) + " left in one piece: " + gibibytes(info.free) +
                              " of " + gibibytes(info.total) + " are free",
                          "end what else uses the device, or load with fewer sessions or a shorter context");
    }
    check(*api_, "cudaMalloc", status);
}

DeviceMemory::~DeviceMemory() {
    release([api = api_, begin = begin_] { ignore(*api, api->cudaFree(begin)); });
}

PinnedMemory::PinnedMemory(Api api, size_t bytes) : api_(std::move(api)), bytes_(bytes) {
    constexpr unsigned flags = kCudaHostAllocPortable | kCudaHostAllocMapped;
    OMNI2_CUDA(*api_, cudaHostAlloc, &begin_, std::max<size_t>(bytes, 1), flags);
    const CudaStatus status = api_->cudaHostGetDevicePointer(&device_begin_, begin_, 0);
    if (status != kCudaSuccess) ignore(*api_, api_->cudaFreeHost(begin_));
    check(*api_, "cudaHostGetDevicePointer", status);
}

PinnedMemory::~PinnedMemory() {
    release([api = api_, begin = begin_] { ignore(*api, api->cudaFreeHost(begin)); });
}

}  // namespace omni2
