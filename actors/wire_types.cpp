#include "actors/wire_types.hpp"

#include "actors/doorkeeper.hpp"
#include "actors/keeper.hpp"
#include "actors/library.hpp"
#include "actors/messages.hpp"
#include "actors/reach.hpp"
#include "actors/roster.hpp"

#include <caf/all.hpp>

namespace tandem::actors {

void add_wire_types(caf::actor_system_config& config) {
  // To a device, and its answers. What carries shared memory (CAF_ALLOW_UNSAFE_MESSAGE_TYPE) is not
  // here: it comes back to its sender as an error that names it.
  config.add_message_type<take_lease>("tandem::take_lease");
  config.add_message_type<lease_taken>("tandem::lease_taken");
  config.add_message_type<load_model>("tandem::load_model");
  config.add_message_type<serve::loaded_model>("tandem::loaded_model");
  config.add_message_type<run_step>("tandem::run_step");
  config.add_message_type<serve::step_result>("tandem::step_result");
  config.add_message_type<withdraw_step>("tandem::withdraw_step");
  config.add_message_type<forget_sequences>("tandem::forget_sequences");
  config.add_message_type<remove_version>("tandem::remove_version");
  config.add_message_type<load_version>("tandem::load_version");
  config.add_message_type<serve::device_facts>("tandem::device_facts");
  config.add_message_type<open_training>("tandem::open_training");
  config.add_message_type<training_opened>("tandem::training_opened");
  config.add_message_type<join_training>("tandem::join_training");
  config.add_message_type<run_training>("tandem::run_training");
  config.add_message_type<train::outcome>("tandem::outcome");
  config.add_message_type<drop_training>("tandem::drop_training");
  config.add_message_type<close_training>("tandem::close_training");
  // To a courier, and its answers.
  config.add_message_type<fetch_range>("tandem::fetch_range");
  config.add_message_type<store_range>("tandem::store_range");
  config.add_message_type<bring_ranges>("tandem::bring_ranges");
  config.add_message_type<take_ranges>("tandem::take_ranges");
  config.add_message_type<keep_ranges>("tandem::keep_ranges");
  config.add_message_type<ranges_moved>("tandem::ranges_moved");
  config.add_message_type<tensor_ref>("tandem::tensor_ref");
  // To the library, and its answers; read_file's is a tensor.
  config.add_message_type<list_files>("tandem::list_files");
  config.add_message_type<shelf::listing>("tandem::listing");
  config.add_message_type<read_file>("tandem::read_file");
  // Between a node, its devices and who lends them.
  config.add_message_type<device_up>("tandem::device_up");
  config.add_message_type<device_ended>("tandem::device_ended");
  config.add_message_type<work_began>("tandem::work_began");
  config.add_message_type<keep_told>("tandem::keep_told");
  config.add_message_type<coordinator_changed>("tandem::coordinator_changed");
  config.add_message_type<join_cluster>("tandem::join_cluster");
  config.add_message_type<cluster_joined>("tandem::cluster_joined");
  config.add_message_type<heads_changed>("tandem::heads_changed");
  config.add_message_type<watch_workers>("tandem::watch_workers");
  config.add_message_type<worker_ended>("tandem::worker_ended");
  config.add_message_type<leave_cluster>("tandem::leave_cluster");
  config.add_message_type<let_go>("tandem::let_go");
  config.add_message_type<try_to_reach>("tandem::try_to_reach");
  config.add_message_type<reach_tried>("tandem::reach_tried");
  // Between a node's door and who serves.
  config.add_message_type<ask_terms>("tandem::ask_terms");
  config.add_message_type<door_terms>("tandem::door_terms");
  config.add_message_type<subscribe>("tandem::subscribe");
  config.add_message_type<serve_report>("tandem::serve_report");
  config.add_message_type<generate>("tandem::generate");
  config.add_message_type<cancel_request>("tandem::cancel_request");
  config.add_message_type<deltas>("tandem::deltas");
}

}  // namespace tandem::actors
