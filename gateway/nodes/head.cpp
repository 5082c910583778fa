#include "gateway/nodes/head.hpp"

#include "actors/library.hpp"
#include "actors/link.hpp"
#include "actors/reach.hpp"
#include "gateway/nodes/link_settings.hpp"
#include "gateway/nodes/worker.hpp"

#include <chrono>
#include <utility>

namespace tandem::gateway {

result<std::unique_ptr<cluster_head>> cluster_head::open(const settings& configuration,
                                                         std::vector<device_spec> devices) {
  auto made = std::unique_ptr<cluster_head>(new cluster_head(configuration, std::move(devices)));
  if (!wants_link(configuration)) return made;
  auto options = link_options(configuration, made->devices_, "");
  if (!options) return options.error();
  made->link_ = *options;
  auto config = linked_config(*std::move(options));
  if (!config) return config.error();
  made->config_ = *std::move(config);
  return made;
}

void cluster_head::start(actor_house& house, const caf::actor& keeper,
                         const actors::coordinator_actor& coordinator,
                         std::shared_ptr<actors::lease_board> events,
                         const store::leader_seat* seat) {
  auto& system = house.system();
  actors::roster_options options;
  options.keeper = keeper;
  options.board = board_;
  options.events = std::move(events);
  if (seat) {
    options.store = seat->database_id();
    options.epoch = seat->epoch();
  }
  auto& head = options.head;
  head.node = head_name;
  head.is_head = true;
  for (const auto& device : devices_) head.devices.push_back(device.name);
  using namespace std::chrono;
  head.since_ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  if (link_) {
    link_address_ = actors::link_of(system).address();
    if (!configuration_.cluster.listen.empty()) head.address = address_ = link_address_;
  }
  roster_ = house.house(system.spawn(actors::roster, std::move(options), coordinator));
  if (!link_) return;
  auto& link = actors::link_of(system);
  if (!configuration_.cluster.listen.empty())
    link.publish(actors::library_name,
                 house.house(system.spawn<caf::detached>(
                     actors::library, shelf::shelf_roots{configuration_.model.path,
                                                         jobs_folder(configuration_.train)})));
  link.publish(actors::roster_name, roster_);
  house.house(system.spawn(actors::reach));
}

void cluster_head::tell_doors(actor_house& house, std::function<actors::door_terms()> terms,
                              const actors::serve_coordinator_actor& serve_coordinator) {
  if (!link_ || configuration_.cluster.listen.empty()) return;  // nobody joins
  const auto keeper =
      house.house(house.system().spawn(actors::doorkeeper, std::move(terms), serve_coordinator));
  actors::link_of(house.system()).publish(actors::doorkeeper_name, keeper);
}

actors::node_options cluster_head::node_options(std::function<void()> changed) const {
  actors::node_options options;
  options.devices = devices_;
  options.gave_up = [losses = losses_, changed = std::move(changed)](const std::string&,
                                                                     const error& why) {
    {
      const std::lock_guard lock(losses->mutex);
      losses->why.push_back(why);
    }
    changed();
  };
  if (!in_workers(configuration_)) return options;
  worker_settings common;
  common.head = link_address_;
  common.node = head_name;
  common.log_level = configuration_.log.level;
  common.link = *link_;
  common.link.advertise.clear();
  common.link.listen = link_address_.substr(0, link_address_.rfind(':')) + ":0";
  options.start_worker = start_workers(std::move(common));
  return options;
}

std::vector<error> cluster_head::given_up() const {
  const std::lock_guard lock(losses_->mutex);
  return losses_->why;
}

}  // namespace tandem::gateway
