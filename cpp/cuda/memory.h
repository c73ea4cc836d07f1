// Memory of the device, and memory of the host that the device can reach. Released with the object, which must outlive
// the work enqueued on it.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/handles.h"

namespace omni2 {

struct CudaMemoryInfo {
    size_t free, total;  // bytes of the device, for all processes
};

CudaMemoryInfo memory_info(const CudaApi& api);

// Not set to anything. Throws OutOfMemory.
class DeviceMemory {
public:
    DeviceMemory(Api api, size_t bytes);
    ~DeviceMemory();
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    std::uintptr_t address() const { return reinterpret_cast<std::uintptr_t>(begin_); }  // the device's
    size_t bytes() const { return bytes_; }

private:
    const Api api_;
    const size_t bytes_;
    void* begin_ = nullptr;
};

// Page-locked and mapped: copies of it are asynchronous, and kernels may write to it. Not set to anything.
class PinnedMemory {
public:
    PinnedMemory(Api api, size_t bytes);
    ~PinnedMemory();
    PinnedMemory(const PinnedMemory&) = delete;
    PinnedMemory& operator=(const PinnedMemory&) = delete;

    void* begin() const { return begin_; }
    std::uintptr_t device_address() const { return reinterpret_cast<std::uintptr_t>(device_begin_); }
    size_t bytes() const { return bytes_; }

private:
    const Api api_;
    const size_t bytes_;
    void* begin_ = nullptr;
    void* device_begin_ = nullptr;
};

}  // namespace omni2
