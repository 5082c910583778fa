// How soon, and how often, what dies is started again.
#pragma once

#include <chrono>
#include <optional>

namespace tandem {

// Each death that follows soon on the one before doubles the pause; every three seconds of life
// forgive one. So what dies as it starts is given up soon, and what is killed now and then is not.
class restart_pace {
 public:
  explicit restart_pace(int restarts_max,
                        std::chrono::milliseconds first_pause = std::chrono::milliseconds(100))
      : restarts_max_(restarts_max), first_pause_(first_pause) {}

  // It died after a life of so long: the pause before it is started again. Nothing: too often.
  std::optional<std::chrono::milliseconds> died(std::chrono::nanoseconds lived);

  // That are not forgiven yet.
  int restarts() const;
  int restarts_max() const { return restarts_max_; }

 private:
  int restarts_max_;
  std::chrono::milliseconds first_pause_;
  std::chrono::nanoseconds to_live_{0};  // until all are forgiven
};

}  // namespace tandem
