// Compiled where CUDA's own header is: every function that cuda_api.h declares by hand has the header's types,
// enumerations aside, which C++ passes as integers, and every constant its value.
#include <cuda_runtime_api.h>

#include <type_traits>

#include "runtime/cuda_api.h"

namespace {

template <class T>
using Passed = std::conditional_t<std::is_enum_v<T>, int, T>;

template <class Function>
struct Signature;

template <class Result, class... Arguments>
struct Signature<Result (*)(Arguments...)> {
    using Type = Passed<Result> (*)(Passed<Arguments>...);
};

template <class Ours, class Theirs>
constexpr bool same = std::is_same_v<typename Signature<Ours>::Type, typename Signature<Theirs>::Type>;

}  // namespace

#define SAME(function) \
    static_assert(same<decltype(omni2::CudaApi::function), decltype(&::function)>, #function " is declared otherwise")

SAME(cudaGetDeviceCount);
SAME(cudaDeviceGetStreamPriorityRange);
SAME(cudaStreamCreateWithPriority);
SAME(cudaStreamDestroy);
SAME(cudaStreamSynchronize);
SAME(cudaStreamWaitEvent);
SAME(cudaEventCreateWithFlags);
SAME(cudaEventDestroy);
SAME(cudaEventRecord);
SAME(cudaEventSynchronize);
SAME(cudaMemcpyAsync);
SAME(cudaLaunchHostFunc);
SAME(cudaGraphLaunch);
SAME(cudaGetLastError);
SAME(cudaGetErrorName);
SAME(cudaGetErrorString);

static_assert(sizeof(cudaError_t) == sizeof(omni2::CudaStatus) && cudaSuccess == omni2::kCudaSuccess);
static_assert(cudaStreamNonBlocking == omni2::kCudaStreamNonBlocking);
static_assert(cudaEventBlockingSync == omni2::kCudaEventBlockingSync);
static_assert(cudaEventDisableTiming == omni2::kCudaEventDisableTiming);
static_assert(cudaMemcpyHostToHost == static_cast<int>(omni2::CopyKind::kHostToHost));
static_assert(cudaMemcpyHostToDevice == static_cast<int>(omni2::CopyKind::kHostToDevice));
static_assert(cudaMemcpyDeviceToHost == static_cast<int>(omni2::CopyKind::kDeviceToHost));
static_assert(cudaMemcpyDeviceToDevice == static_cast<int>(omni2::CopyKind::kDeviceToDevice));
