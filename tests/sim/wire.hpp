// The connection between the head and another node of a simulated cluster. Actors of the one side
// are seen from the other through proxies that behave as the link's do (actors/link.hpp): order is
// kept, and when the connection is cut, monitors hear of it, requests come back at once, and what
// was on its way is lost. Proxies of a connection that was cut stay dead; a new one has new ones.
#pragma once

#include "actors/messages.hpp"
#include "actors/roster.hpp"

#include <caf/actor_proxy.hpp>
#include <caf/all.hpp>
#include <caf/detail/sync_request_bouncer.hpp>

#include <map>
#include <memory>
#include <utility>

namespace tandem::sim {

class wire {
 public:
  explicit wire(caf::actor_system& system) : system_(system) {}
  ~wire() { cut(); }
  wire(const wire&) = delete;
  wire& operator=(const wire&) = delete;

  // Cuts what is there; from then on handles are of the next connection.
  void cut() {
    const auto lost = std::exchange(open_, {});
    const auto dead = std::exchange(proxies_, {});
    for (const auto& [whom, one] : dead) as_proxy(one)->kill_proxy(nullptr, gone());
    for (const auto& [key, asker] : lost)
      asker.first->enqueue(nullptr, asker.second.response_id(),
                           caf::make_message(caf::make_error(caf::sec::request_receiver_down)),
                           nullptr);
  }

  // This actor as the other side sees it.
  template <class Handle>
  Handle over(const Handle& who) {
    return caf::actor_cast<Handle>(proxy_of(caf::actor_cast<caf::strong_actor_ptr>(who)));
  }

 private:
  class proxy final : public caf::actor_proxy {
   public:
    proxy(caf::actor_config& config, wire* through, caf::strong_actor_ptr to)
        : caf::actor_proxy(config), through_(through), to_(std::move(to)) {}
    void enqueue(caf::mailbox_element_ptr what, caf::execution_unit*) override {
      if (!what) return;
      if (to_)
        through_->carry(*what, to_);
      else
        caf::detail::sync_request_bouncer{caf::make_error(caf::sec::request_receiver_down)}(*what);
    }
    void kill_proxy(caf::execution_unit* context, caf::error reason) override {
      to_ = nullptr;
      cleanup(std::move(reason), context);
    }
    const caf::strong_actor_ptr& to() const { return to_; }
    bool is_of(const wire* connection) const { return through_ == connection; }

   private:
    wire* through_;
    caf::strong_actor_ptr to_;
  };
  using request_key = std::pair<caf::actor_id, std::uint64_t>;

  static caf::error gone() { return caf::exit_reason::remote_link_unreachable; }
  static proxy* as_proxy(const caf::strong_actor_ptr& one) {
    return dynamic_cast<proxy*>(caf::actor_cast<caf::abstract_actor*>(one));
  }
  // A node of its own: a proxy must not look like an actor of this process.
  static const caf::node_id& far_side() {
    static const auto id = caf::make_node_id(1, caf::node_id::default_data::host_id_type{{1}});
    return id;
  }

  caf::strong_actor_ptr proxy_of(const caf::strong_actor_ptr& who) {
    if (!who) return nullptr;
    auto& made = proxies_[who->id()];
    if (made) return made;
    caf::actor_config config;
    made = caf::make_actor<proxy, caf::strong_actor_ptr>(system_.next_actor_id(), far_side(),
                                                         &system_, config, this, who);
    caf::actor_cast<caf::abstract_actor*>(who)->attach_functor(
        [seen = caf::actor_cast<caf::weak_actor_ptr>(made)](const caf::error& why) {
          if (const auto still = seen.lock()) as_proxy(still)->kill_proxy(nullptr, why);
        });
    return made;
  }

  void carry(caf::mailbox_element& what, const caf::strong_actor_ptr& to) {
    auto content = what.move_content_to_message();
    translate(content);
    if (what.mid.is_request() && what.sender)
      open_[{what.sender->id(), what.mid.request_id().integer_value()}] = {what.sender, what.mid};
    else if (what.mid.is_response())
      open_.erase({to->id(), what.mid.request_id().integer_value()});
    to->enqueue(proxy_of(what.sender), what.mid, std::move(content), nullptr);
  }
  // Handles become those of the other side; shared memory does not travel.
  void translate(caf::message& content) {
    if (content.match_elements<actors::device_up>()) {
      auto& device = content.get_mutable_as<actors::device_up>(0).device;
      device = over(device);
    } else if (content.match_elements<actors::join_cluster>()) {
      auto& member = content.get_mutable_as<actors::join_cluster>(0).member;
      member = over(member);
    } else if (content.match_elements<actors::coordinator_changed>()) {
      auto& now = content.get_mutable_as<actors::coordinator_changed>(0).now;
      now = over(now);
    } else if (content.match_elements<serve::loaded_model>()) {
      content.get_mutable_as<serve::loaded_model>(0).kv = nullptr;
    } else if (content.match_elements<actors::training_opened>()) {
      auto& opened = content.get_mutable_as<actors::training_opened>(0);
      opened.facts.shared = nullptr;
      opened.courier = carried(opened.courier);
    } else if (content.match_elements<actors::join_training>()) {
      auto& group = content.get_mutable_as<actors::join_training>(0).group;
      group.assign(group.size(), nullptr);
    } else if (content.match_elements<actors::bring_ranges>()) {
      for (auto& one : content.get_mutable_as<actors::bring_ranges>(0).group) one = carried(one);
    } else if (content.match_elements<actors::take_ranges>()) {
      for (auto& one : content.get_mutable_as<actors::take_ranges>(0).group) one = carried(one);
    } else if (content.match_elements<actors::keep_ranges>()) {
      for (auto& one : content.get_mutable_as<actors::keep_ranges>(0).group) one = carried(one);
    }
  }
  // What is over there already is itself again, as on the link.
  actors::courier_actor carried(const actors::courier_actor& who) {
    const auto one = caf::actor_cast<caf::strong_actor_ptr>(who);
    const auto* const known = as_proxy(one);
    return known != nullptr && known->is_of(this)
               ? caf::actor_cast<actors::courier_actor>(known->to())
               : over(who);
  }

  caf::actor_system& system_;
  std::map<caf::actor_id, caf::strong_actor_ptr> proxies_;  // by whom they stand for
  std::map<request_key, std::pair<caf::strong_actor_ptr, caf::message_id>> open_;
};

}  // namespace tandem::sim
