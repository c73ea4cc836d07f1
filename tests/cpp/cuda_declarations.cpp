// Compiled where CUDA's own header is: every function that cuda_api.h declares by hand has the header's types,
// enumerations aside, which C++ passes as integers, and every constant its value.
#include <cuda_runtime_api.h>

#include <type_traits>

#include "cuda/api.h"

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
struct Passing<cudaDeviceProp> {
    using Type = omni2::CudaDeviceProperties;
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
static_assert(cudaErrorInitializationError == omni2::kCudaInitializationError);
static_assert(cudaErrorStubLibrary == omni2::kCudaStubLibrary);
static_assert(cudaErrorInsufficientDriver == omni2::kCudaInsufficientDriver);
static_assert(cudaErrorDevicesUnavailable == omni2::kCudaDevicesUnavailable);
static_assert(cudaErrorNoDevice == omni2::kCudaNoDevice);
static_assert(cudaErrorInvalidKernelImage == omni2::kCudaInvalidImage);
static_assert(cudaErrorNoKernelImageForDevice == omni2::kCudaNoImageForDevice);
static_assert(cudaErrorECCUncorrectable == omni2::kCudaUncorrectableMemory);
static_assert(cudaErrorUnsupportedPtxVersion == omni2::kCudaUnsupportedPtx);
static_assert(cudaErrorIllegalAddress == omni2::kCudaIllegalAddress);
static_assert(cudaErrorLaunchTimeout == omni2::kCudaLaunchTimeout);
static_assert(cudaErrorHardwareStackError == omni2::kCudaHardwareStack);
static_assert(cudaErrorIllegalInstruction == omni2::kCudaIllegalInstruction);
static_assert(cudaErrorMisalignedAddress == omni2::kCudaMisalignedAddress);
static_assert(cudaErrorLaunchFailure == omni2::kCudaLaunchFailure);
static_assert(cudaErrorSystemDriverMismatch == omni2::kCudaDriverMismatch);
static_assert(cudaErrorCompatNotSupportedOnDevice == omni2::kCudaCompatNotSupported);
static_assert(cudaErrorStreamCaptureUnsupported == omni2::kCudaFirstCaptureError);
static_assert(cudaErrorCapturedEvent == omni2::kCudaLastCaptureError);
static_assert(cudaStreamNonBlocking == omni2::kCudaStreamNonBlocking);
static_assert(cudaEventBlockingSync == omni2::kCudaEventBlockingSync);
static_assert(cudaEventDisableTiming == omni2::kCudaEventDisableTiming);
static_assert(cudaHostAllocPortable == omni2::kCudaHostAllocPortable);
static_assert(cudaHostAllocMapped == omni2::kCudaHostAllocMapped);
static_assert(cudaStreamCaptureModeThreadLocal == omni2::kCudaCaptureThreadLocal);
static_assert(cudaDevAttrComputeCapabilityMajor == omni2::kCudaCapabilityMajor);
static_assert(cudaDevAttrComputeCapabilityMinor == omni2::kCudaCapabilityMinor);
static_assert(cudaFuncAttributeMaxDynamicSharedMemorySize == omni2::kCudaMaxDynamicSharedMemory);
static_assert(cudaMemcpyHostToHost == static_cast<int>(omni2::CopyKind::kHostToHost));
static_assert(cudaMemcpyHostToDevice == static_cast<int>(omni2::CopyKind::kHostToDevice));
static_assert(cudaMemcpyDeviceToHost == static_cast<int>(omni2::CopyKind::kDeviceToHost));
static_assert(cudaMemcpyDeviceToDevice == static_cast<int>(omni2::CopyKind::kDeviceToDevice));

static_assert(offsetof(cudaDeviceProp, name) == 0);
static_assert(sizeof(cudaDeviceProp::name) == sizeof(omni2::CudaDeviceProperties::name));
static_assert(sizeof(cudaDeviceProp) <= sizeof(omni2::CudaDeviceProperties));
static_assert(sizeof(dim3) == sizeof(omni2::CudaDim3) && std::is_trivially_copyable_v<dim3>);
static_assert(offsetof(dim3, y) == offsetof(omni2::CudaDim3, y) && offsetof(dim3, z) == offsetof(omni2::CudaDim3, z));
