// Threads and the Python interpreter: which of them hold its lock (the GIL), and that none of ours asks for it once the
// interpreter has ended.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>
#include <optional>

#include "scheduler/scheduler.h"

namespace omni2 {

// Without the interpreter lock, from a call of Python's. As the interpreter ends, it waits until every such call has
// come back to the lock, and later ones keep it: a thread that asked for it afterwards would be torn down inside C++.
class Unlocked {
public:
    Unlocked();
    ~Unlocked();
    Unlocked(const Unlocked&) = delete;
    Unlocked& operator=(const Unlocked&) = delete;

private:
    std::optional<pybind11::gil_scoped_release> release_;
};

// A thread's Python state, kept from call to call, threading.local() included: one thread_local object in a thread that
// Python did not start. Making the state anew for each call would cost as much as a small task.
class ThreadState {
public:
    ThreadState() : before_(PyGILState_Ensure()), state_(PyEval_SaveThread()) {}
    ~ThreadState() {
        if (!Py_IsInitialized()) return;
        PyEval_RestoreThread(state_);
        PyGILState_Release(before_);
    }
    ThreadState(const ThreadState&) = delete;
    ThreadState& operator=(const ThreadState&) = delete;

private:
    PyGILState_STATE before_;
    PyThreadState* state_;
};

// Hands a scheduler over to Python. Its last reference may be dropped on any thread, its own included, and the
// interpreter does not end before its threads have. Called without the interpreter lock.
std::shared_ptr<Scheduler> shared_with_python(std::unique_ptr<Scheduler> scheduler);

// To be called once, when the module is loaded.
void shut_down_at_exit();

// To be called once, when the module is loaded: the child of os.fork() shuts down and joins only what it made itself.
void start_anew_after_fork();

}  // namespace omni2
