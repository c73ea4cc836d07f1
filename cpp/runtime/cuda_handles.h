// Handles of CUDA's that give themselves back.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "runtime/cuda_api.h"

namespace omni2 {

using Api = std::shared_ptr<const CudaApi>;

// What may wait for the device, CUDA refuses a thread that records a stream, and gives up the recording: giving memory
// or kernels back, which Python does whenever it likes. give_back() does it at once or, between the other two, at last.
void give_back(std::function<void()> action);
void recording_begins();
void recording_ends();

struct Destroy {
    Api api;

    void operator()(CUstream_st* stream) const { ignore(*api, api->cudaStreamDestroy(stream)); }
    void operator()(CUevent_st* event) const { ignore(*api, api->cudaEventDestroy(event)); }
    void operator()(CUgraph_st* graph) const { ignore(*api, api->cudaGraphDestroy(graph)); }
    void operator()(CUgraphExec_st* executable) const { ignore(*api, api->cudaGraphExecDestroy(executable)); }
    void operator()(CUlib_st* library) const {
        give_back([api = api, library] { ignore(*api, api->cudaLibraryUnload(library)); });
    }
};

template <class Object>
using Handle = std::unique_ptr<Object, Destroy>;

template <class Object>
Handle<Object> owned(const Api& api, Object* object) {
    return Handle<Object>(object, Destroy{api});
}

}  // namespace omni2
