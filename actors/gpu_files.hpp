// Orders to a device name files of whoever gave them. Where these are of another machine the
// device's borrower gets them first; meanwhile the device goes on with whatever it runs.
#pragma once

#include "actors/gpu.hpp"

#include <functional>
#include <memory>
#include <utility>
#include <vector>

namespace tandem::actors {

using gpu_pointer = gpu_actor::stateful_pointer<gpu_state>;
using file_hold = std::shared_ptr<const void>;  // while it lives the files stay

using model_answer = caf::typed_response_promise<serve::loaded_model>;
using version_answer = caf::typed_response_promise<serve::device_facts>;
using opened_answer = caf::typed_response_promise<training_opened>;

// A path in an order, to be made one of this machine.
template <class Order>
struct named_files {
  std::function<std::string&(Order&)> path;
  shelf::purpose what = shelf::purpose::model;
};

template <class T, class Order>
struct order_with_files {
  Order order;
  std::vector<named_files<Order>> files;
  std::chrono::milliseconds patience{0};
  // Answers, now or later.
  std::function<void(Order&, caf::typed_response_promise<T>, file_hold)> carry_out;
  std::function<void(const error&)> given_up;  // may be empty
};

namespace detail {

template <class T, class Order>
struct fetching {
  order_with_files<T, Order> what;
  caf::node_id from;
  std::size_t next = 0;
  std::vector<std::shared_ptr<const shelf::lock_file>> holds;  // until it is carried out
  caf::typed_response_promise<T> answer;
};

template <class T, class Order>
void fetch_next(gpu_pointer self, const std::shared_ptr<fetching<T, Order>>& run) {
  if (run->next == run->what.files.size()) {
    run->what.carry_out(run->what.order, run->answer, run);
    return;
  }
  const auto& file = run->what.files[run->next++];
  self->request(self->state.borrower, caf::infinite,
                borrow{run->from, file.path(run->what.order), file.what, run->what.patience})
      .then(
          [=, &file](const borrowed& here) {
            file.path(run->what.order) = here.path;
            run->holds.push_back(here.hold);
            fetch_next(self, run);
          },
          [=](const caf::error& why) {
            run->answer.deliver(why);
            if (run->what.given_up) run->what.given_up(from_caf(why));
          });
}

}  // namespace detail

// At once where the files are this machine's own: on the head, in its workers, and for an order of
// this very process.
template <class T, class Order>
caf::result<T> with_files(gpu_pointer self, order_with_files<T, Order> what) {
  const auto& sender = self->current_sender();
  if (!self->state.borrower || !sender || sender->node() == self->node()) {
    auto answer = self->template make_response_promise<T>();
    what.carry_out(what.order, answer, nullptr);
    return answer;
  }
  auto run = std::make_shared<detail::fetching<T, Order>>();
  run->what = std::move(what);
  run->from = sender->node();
  run->answer = self->template make_response_promise<T>();
  detail::fetch_next(self, run);
  return run->answer;
}

}  // namespace tandem::actors
