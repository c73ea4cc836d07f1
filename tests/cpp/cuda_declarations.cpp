// Compiled where CUDA's own header is: every function that cuda_api.h declares by hand has the header's types,
// enumerations aside, which C++ passes as integers, and every constant its value.
#include <cuda_runtime_api.h>

#include <type_traits>

#include "runtime/cuda_api.h"

namespace {

template <class T>
struct Passing {
    using Type = std::conditional_t<std::is_enum_v<T>, int, T>;
};

template <class T>
struct Passing<T*> {
    using Type = typename Passing<T>::Type*;
};

template <>
struct Passing<dim3> {
    using Type = omni2::CudaDim3;
};

template <class Function>
struct Signature;

template <class Result, class... Arguments>
struct Signature<Result (*)(Arguments...)> {
    using Type = typename Passing<Result>::Type (*)(typename Passing<Arguments>::Type...);
};

template <class Ours, class Theirs>
constexpr bool same = std::is_same_v<typename Signature<Ours>::Type, typename Signature<Theirs>::Type>;

}  // namespace

#define SAME(function, parameters) \
    static_assert(same<decltype(omni2::CudaApi::function), decltype(&::function)>, #function " is declared otherwise");

OMNI2_CUDA_FUNCTIONS(SAME)
SAME(cudaGetErrorName, )
SAME(cudaGetErrorString, )

static_assert(sizeof(cudaError_t) == sizeof(omni2::CudaStatus) && cudaSuccess == omni2::kCudaSuccess);
static_assert(cudaErrorMemoryAllocation == omni2::kCudaOutOfMemory);
static_assert(cudaStreamNonBlocking == omni2::kCudaStreamNonBlocking);
static_assert(cudaEventBlockingSync == omni2::kCudaEventBlockingSync);
static_assert(cudaEventDisableTiming == omni2::kCudaEventDisableTiming);
static_assert(cudaHostAllocPortable == omni2::kCudaHostAllocPortable);
static_assert(cudaHostAllocMapped == omni2::kCudaHostAllocMapped);
static_assert(cudaStreamCaptureModeThreadLocal == omni2::kCudaCaptureThreadLocal);
static_assert(cudaDevAttrMultiProcessorCount == omni2::kCudaMultiprocessors);
static_assert(cudaDevAttrComputeCapabilityMajor == omni2::kCudaCapabilityMajor);
static_assert(cudaDevAttrComputeCapabilityMinor == omni2::kCudaCapabilityMinor);
static_assert(cudaFuncAttributeMaxDynamicSharedMemorySize == omni2::kCudaMaxDynamicSharedMemory);
static_assert(cudaMemcpyHostToHost == static_cast<int>(omni2::CopyKind::kHostToHost));
static_assert(cudaMemcpyHostToDevice == static_cast<int>(omni2::CopyKind::kHostToDevice));
static_assert(cudaMemcpyDeviceToHost == static_cast<int>(omni2::CopyKind::kDeviceToHost));
static_assert(cudaMemcpyDeviceToDevice == static_cast<int>(omni2::CopyKind::kDeviceToDevice));

static_assert(offsetof(cudaDeviceProp, name) == 0 && sizeof(cudaDeviceProp::name) == omni2::kCudaDeviceNameBytes);
static_assert(sizeof(cudaDeviceProp) <= omni2::kCudaDevicePropRoom);
static_assert(sizeof(dim3) == sizeof(omni2::CudaDim3) && std::is_trivially_copyable_v<dim3>);
static_assert(offsetof(dim3, y) == offsetof(omni2::CudaDim3, y) && offsetof(dim3, z) == offsetof(omni2::CudaDim3, z));
