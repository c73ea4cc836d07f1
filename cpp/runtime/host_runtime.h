// The runtime without a device: a worker thread per stream.
#pragma once

#include "runtime/runtime.h"

namespace omni2 {

std::shared_ptr<Runtime> host_runtime();

// A graph for the host runtime: calls `function` on the stream's thread.
std::unique_ptr<Graph> host_graph(std::function<void()> function);

}  // namespace omni2
