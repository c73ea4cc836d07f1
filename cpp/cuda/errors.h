// What CUDA refuses and what a device reports, as exceptions: the problem and its remedy.
#pragma once

#include <stdexcept>
#include <string>
#include <utility>

#include "cuda/api.h"

namespace omni2 {

class CudaError : public std::runtime_error {
public:
    CudaError(std::string problem, std::string remedy)
        : std::runtime_error(problem + " — " + remedy), problem_(std::move(problem)), remedy_(std::move(remedy)) {}

    const std::string& problem() const { return problem_; }
    const std::string& remedy() const { return remedy_; }

private:
    std::string problem_, remedy_;
};

// The device has no room for what was asked for.
class OutOfMemory : public CudaError {
public:
    using CudaError::CudaError;
};

// The error of a call that failed: function, name and number of the status, CUDA's text, and a remedy.
CudaError cuda_error(const CudaApi& api, const char* function, CudaStatus status);

// Throws cuda_error() unless the status is success.
void check(const CudaApi& api, const char* function, CudaStatus status);

// For calls in destructors, which cannot throw: takes an error off the thread, so that no later call reports it.
void ignore(const CudaApi& api, CudaStatus status);

// Calls a function of the library and throws its error.
#define OMNI2_CUDA(api, function, ...) ::omni2::check((api), #function, (api).function(__VA_ARGS__))

}  // namespace omni2
