// The HTTP address of a node that joined, where its head wants doors on all nodes. Texts are made
// here and tokens come from the head's serve coordinator, over the link; what needs the store or
// the coordinators is passed on to the head. It stays open while heads come and go.
#pragma once

#include "actors/door.hpp"
#include "actors/gateway.hpp"
#include "gateway/actor_engine.hpp"
#include "gateway/keys.hpp"
#include "gateway/nodes/actor_house.hpp"
#include "gateway/pass_through.hpp"
#include "gateway/server.hpp"
#include "runtime/settings.hpp"

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

namespace tandem::gateway {

// All of it on the process's main thread.
class node_door {
 public:
  // `wake` is called from any thread when `look` has something to do.
  node_door(actor_house& house, const settings& configuration, actors::borrower_actor borrower,
            std::function<void()> wake);
  ~node_door();

  void joined(const std::string& head);
  void lost();
  // Does what the head has told meanwhile. What a person should know: where the door is, or why it
  // is not open; once each.
  std::optional<result<std::string>> look();

  void drain();  // no new requests; live streams of the head end
  bool is_idle() const;
  void close();

 private:
  struct told {
    std::mutex mutex;
    std::optional<actors::door_news> newest;
  };

  result<void> open(const actors::door_terms& terms);
  result<void> read_model(const actors::door_news& news);
  void take(actors::door_news news);
  void shut();

  const settings configuration_;
  const std::shared_ptr<told> told_ = std::make_shared<told>();
  const std::shared_ptr<actors::gateway_board> board_ = std::make_shared<actors::gateway_board>();
  const std::shared_ptr<told_keys> api_keys_ = std::make_shared<told_keys>();
  const std::shared_ptr<told_keys> admin_keys_ = std::make_shared<told_keys>();
  actors::gateway_actor gateway_;
  caf::actor door_;
  std::optional<actors::door_news> news_;  // the newest
  std::shared_ptr<actor_engine> engine_;   // null: not open
  std::shared_ptr<pass_through> head_;
  std::unique_ptr<server> http_;
  std::optional<caf::node_id> model_of_;  // whose the engine serves
  bool is_given_up_ = false;
};

}  // namespace tandem::gateway
