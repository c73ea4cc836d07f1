// From logits to a token: repetition penalty, greedy choice, and a draw under temperature, top-k and top-p (spec §6).
// The logits are only read; NaN counts as minus infinity; equal logits rank by id, lower first.
#pragma once

#include <stdexcept>
#include <vector>

#include "scores.cuh"

namespace omni2 {

// Thrown where no token has a logit that can be chosen.
struct NoCandidateError : std::domain_error {
    using std::domain_error::domain_error;
};

// Logits of one position as the repetition penalty leaves them: each id already generated counts once, its logit
// divided by the penalty, or multiplied where negative. Only those values are held here; the rest stay where they are.
class Scores {
public:
    // Keeps the pointer `logits` (size values); throws std::invalid_argument for an id outside [0, size).
    Scores(const float* logits, uint32_t size, const int64_t* generated, size_t generated_count, float penalty);

    // Calls visit(first_id, values, count) for runs of consecutive ids that together are all ids in ascending order.
    template <class Visit>
    void each_run(Visit visit) const {
        uint32_t next = 0;
        for (const Changed& changed : changed_) {
            if (changed.id > next) visit(next, logits_ + next, changed.id - next);
            visit(changed.id, &changed.value, uint32_t{1});
            next = changed.id + 1;
        }
        if (size_ > next) visit(next, logits_ + next, size_ - next);
    }

    uint32_t size() const { return size_; }

private:
    struct Changed {
        uint32_t id;
        float value;
    };

    const float* logits_;
    uint32_t size_;
    std::vector<Changed> changed_;  // ascending ids
};

// Id of the greatest score, the first of equals. Throws NoCandidateError when all are NaN.
uint32_t argmax(const Scores& scores);

struct SampleSettings {
    float temperature;  // > 0
    uint32_t top_k;     // keep scores not below the k-th greatest, so ties at the k-th stay; 0: all
    double top_p;       // then the fewest, likeliest first, that hold this share of what is kept; 1: all
};

// One draw from softmax(scores / temperature) over what top-k, then top-p keep. It depends on the key and the kept
// scores alone: token i takes part in a Gumbel race with element i of the key's draw. Throws NoCandidateError when no
// score is above minus infinity.
uint32_t sample(const Scores& scores, const SampleSettings& settings, const DrawKey& key);

}  // namespace omni2
