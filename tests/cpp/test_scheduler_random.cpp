// The scheduler's rules over random task graphs, with random lengths of calls, failures, holds and cancellations; no
// threads.
#include <iterator>
#include <map>
#include <random>
#include <set>

#include "check.h"
#include "scheduler/core.h"

namespace omni2::test {
namespace {

std::exception_ptr error() { return std::make_exception_ptr(std::runtime_error("broken")); }

// Plays random task graphs with random lengths of calls, failures and cancellations, and holds every start to the
// rules.
class RandomPlay {
public:
    explicit RandomPlay(uint64_t seed)
        : random_(seed), stages_(pick(1, 5)), width_(pick(1, stages_)), core_(random_stages(), width_, random_order()) {
        for (size_t i = pick(1, 6); i > 0; --i) sessions_.push_back(core_.open(nullptr, pick(0, 3) ? kNever : 0.5));
    }

    void play() {
        for (int step = 0; step < 400; ++step) {
            now_ += 0.01;
            act();
            start();
        }
        for (const SessionId session : sessions_) hold(session, false);
        while (!core_.idle()) {  // nothing new: all that is left must get done
            start();
            if (calls_.empty()) {
                now_ = core_.wake(now_);
                CHECK(now_ < kNever);  // else a deadlock
                continue;
            }
            end(calls_.begin()->first);
        }
        for (const auto& entry : tasks_) CHECK(entry.second.state != State::kQueued);
    }

private:
    enum class State { kQueued, kRunning, kDone, kDropped };

    struct Known {
        SessionId session;
        size_t stage;
        int64_t key;
        std::vector<TaskId> after;
        State state = State::kQueued;
    };

    size_t pick(size_t low, size_t high) { return std::uniform_int_distribution<size_t>(low, high)(random_); }

    std::vector<StageShape> random_stages() {
        for (size_t i = 0; i < stages_; ++i) shapes_.push_back({pick(1, 4), static_cast<int>(pick(0, 2))});
        return shapes_;
    }

    Order random_order() { return pick(0, 1) ? Order::kDeadline : Order::kArrival; }
    SessionId random_session() { return sessions_[pick(0, sessions_.size() - 1)]; }

    void act() {
        const SessionId session = random_session();
        switch (pick(0, 12)) {
            case 0: cancel(session); break;
            case 1: core_.begin(session); break;
            case 2: core_.finish(session); break;
            case 3: hold(session, pick(0, 2) == 0); break;
            case 4: core_.delivered(session, 0.05 * static_cast<double>(pick(0, 10)), now_); break;
            case 5:
            case 6:
            case 7:
                end_one();
                break;
            default: submit(session);
        }
    }

    void hold(SessionId session, bool held) {
        core_.hold(session, held);
        if (held)
            held_.insert(session);
        else
            held_.erase(session);
    }

    void submit(SessionId session) {
        if (cancelled_.count(session)) {
            if (!core_.drained(session)) return;
            core_.revive(session);
            cancelled_.erase(session);
            held_.erase(session);
            known_[session].clear();
        }
        Known task{session, pick(0, stages_ - 1), static_cast<int64_t>(pick(0, 1)), {}};
        for (size_t i = pick(0, 3); i > 0 && !known_[session].empty(); --i)
            task.after.push_back(known_[session][pick(0, known_[session].size() - 1)]);
        // The payload is the task's id, which is only known afterwards.
        const auto name = std::make_shared<TaskId>(0);
        *name = core_.submit(session, task.stage, Payload(name), task.after, task.key);
        known_[session].push_back(*name);
        tasks_[*name] = task;
    }

    void cancel(SessionId session) {
        core_.cancel(session);
        given_up(session);
    }

    void given_up(SessionId session) {
        cancelled_.insert(session);
        for (auto& entry : tasks_)
            if (entry.second.session == session && entry.second.state == State::kQueued)
                entry.second.state = State::kDropped;
    }

    void start() {
        for (const size_t stage : core_.start(now_)) {
            CHECK(calls_.count(stage) == 0);  // one call at a time
            calls_[stage];
            unadmitted_.insert(stage);
            for (const SessionId session : core_.sessions(stage)) CHECK(held_.count(session) == 0);
            if (pick(0, 1)) admit(stage);
        }
        CHECK(calls_.size() <= width_);
    }

    void admit(size_t stage) {
        if (unadmitted_.erase(stage) == 0) return;
        auto& call = calls_[stage];
        for (const Payload& name : core_.take_payloads(stage)) call.push_back(*static_cast<const TaskId*>(name.get()));
        check_call(stage, call);
        for (const TaskId id : call) tasks_[id].state = State::kRunning;
    }

    void check_call(size_t stage, const std::vector<TaskId>& call) {
        CHECK(call.size() <= shapes_[stage].max_batch);
        std::set<SessionId> sessions;
        for (const TaskId id : call) {
            const Known& task = tasks_.at(id);
            CHECK(task.state == State::kQueued);  // in particular: not cancelled, even since it was started
            CHECK_EQUAL(task.stage, stage);
            CHECK_EQUAL(task.key, tasks_.at(call.front()).key);
            CHECK(sessions.insert(task.session).second);
            for (const TaskId earlier : task.after) CHECK(tasks_.at(earlier).state == State::kDone);
            for (const auto& other : tasks_)  // nothing of this session and stage that came before is left
                if (other.first < id && other.second.session == task.session && other.second.stage == stage)
                    CHECK(other.second.state == State::kDone || other.second.state == State::kDropped);
        }
    }

    void end_one() {
        if (calls_.empty()) return;
        auto call = calls_.begin();
        std::advance(call, pick(0, calls_.size() - 1));
        end(call->first);
    }

    void end(size_t stage) {
        admit(stage);
        const std::vector<TaskId> call = calls_.at(stage);
        calls_.erase(stage);
        Errors errors(call.size());
        for (size_t i = 0; i < call.size(); ++i)
            if (pick(0, 15) == 0) errors[i] = error();
        core_.complete(stage, {nullptr, errors});
        for (size_t i = 0; i < call.size(); ++i) {
            Known& task = tasks_[call[i]];
            task.state = errors[i] ? State::kDropped : State::kDone;
            if (errors[i]) given_up(task.session);
        }
    }

    std::mt19937_64 random_;
    size_t stages_, width_;
    std::vector<StageShape> shapes_;
    Core core_;
    std::vector<SessionId> sessions_;
    std::set<SessionId> cancelled_, held_;
    std::map<SessionId, std::vector<TaskId>> known_;  // since it was revived
    std::map<TaskId, Known> tasks_;
    std::map<size_t, std::vector<TaskId>> calls_;
    std::set<size_t> unadmitted_;  // calls started that have not begun
    double now_ = 0.0;
};

TEST("over random task graphs: dependencies, order, batches, width, no deadlock") {
    for (uint64_t seed = 0; seed < 1000; ++seed) {
        try {
            RandomPlay(seed).play();
        } catch (const Failed& failure) {
            throw Failed("seed " + std::to_string(seed) + ": " + failure.what());
        }
    }
}

}  // namespace
}  // namespace omni2::test
