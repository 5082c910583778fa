// The coordinator's book in the store. A lease is written without a sync of its own: a kill of the
// process never loses one, a power cut may, and devices that lost their power hold none. What must
// never repeat is an epoch: they are reserved durably, a block ahead.
#include "runtime/store/sql_store.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace tandem::store {
namespace {

constexpr std::int64_t epochs_ahead = 4096;

std::int64_t stored(lease::epoch at) { return static_cast<std::int64_t>(at); }
lease::epoch epoch_in(const query& row, int column) {
  return static_cast<lease::epoch>(row.integer(column));
}

result<lease::role> role_in(const query& row, int column) {
  if (const auto role = lease::role_from(row.text(column))) return *role;
  return error{
      errc::bad_file,
      fmt::format("the book of leases names a role '{}', which there is not", row.text(column)),
      ""};
}

class lease_table final : public lease::lease_store {
 public:
  explicit lease_table(std::shared_ptr<sql_store> owner) : owner_(std::move(owner)) {}

  result<saved> load() const override { return owner_->load_leases(); }
  result<void> save(const lease::lease& now) override { return owner_->save_lease(now); }
  result<void> forget(std::string_view device, lease::epoch newest) override {
    return owner_->forget_lease(device, newest);
  }
  result<void> pin(std::string_view device, std::optional<lease::role> as) override {
    return owner_->pin_device(device, as);
  }

 private:
  std::shared_ptr<sql_store> owner_;
};

}  // namespace

std::shared_ptr<lease::lease_store> sql_store::leases() {
  return std::make_shared<lease_table>(shared_from_this());
}

result<lease::lease_store::saved> sql_store::load_leases() const {
  return read([&](database& db) -> result<lease::lease_store::saved> {
    lease::lease_store::saved found;
    auto rows = db.prepare(
        "SELECT device, role, holder, epoch, guest, serve_since, train_since FROM leases "
        "ORDER BY device");
    for (;;) {
      auto row = rows.next();
      if (!row) return row.error();
      if (!*row) break;
      const auto as = role_in(rows, 1);
      if (!as) return as.error();
      found.leases.push_back({rows.text(0), *as, rows.text(2), epoch_in(rows, 3), rows.text(4),
                              epoch_in(rows, 5), epoch_in(rows, 6)});
      found.newest = std::max(found.newest, found.leases.back().at);
    }
    auto reserved = db.prepare("SELECT reserved FROM lease_epoch");
    auto row = reserved.next();
    if (!row) return row.error();
    if (*row) found.newest = std::max(found.newest, epoch_in(reserved, 0));
    auto pins = db.prepare("SELECT device, role FROM pins ORDER BY device");
    for (;;) {
      row = pins.next();
      if (!row) return row.error();
      if (!*row) return found;
      const auto as = role_in(pins, 1);
      if (!as) return as.error();
      found.pins.emplace_back(pins.text(0), *as);
    }
  });
}

result<void> sql_store::reserve_epochs(lease::epoch at) {
  if (at <= reserved_epoch_) return {};
  // Nothing that this process gave out may be given out again after a power cut.
  const auto up_to = stored(at) + epochs_ahead;
  auto done = write(true, [&](database& db) -> result<void> {
    auto ahead = db.prepare(R"(INSERT INTO lease_epoch ("only", reserved) VALUES (1, ?1) )"
                            R"(ON CONFLICT ("only") DO UPDATE SET reserved = excluded.reserved )"
                            "WHERE excluded.reserved > lease_epoch.reserved");
    if (auto run = ahead.bind(up_to).run(); !run) return run.error();
    return {};
  });
  if (done) reserved_epoch_ = static_cast<lease::epoch>(up_to);
  return done;
}

result<void> sql_store::save_lease(const lease::lease& now) {
  if (auto reserved = reserve_epochs(now.at); !reserved) return reserved;
  return write(false, [&](database& db) -> result<void> {
    auto row = db.prepare(
        "INSERT INTO leases (device, role, holder, epoch, guest, serve_since, train_since) "
        "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (device) DO UPDATE SET "
        "role = excluded.role, holder = excluded.holder, epoch = excluded.epoch, "
        "guest = excluded.guest, serve_since = excluded.serve_since, "
        "train_since = excluded.train_since");
    row.bind(now.device, lease::name_of(now.held_as), now.holder, stored(now.at), now.guest,
             stored(now.serve_since), stored(now.train_since));
    if (auto run = row.run(); !run) return run.error();
    return {};
  });
}

result<void> sql_store::forget_lease(std::string_view device, lease::epoch newest) {
  if (auto reserved = reserve_epochs(newest); !reserved) return reserved;
  return write(false, [&](database& db) -> result<void> {
    auto row = db.prepare("DELETE FROM leases WHERE device = ?1");
    if (auto run = row.bind(device).run(); !run) return run.error();
    return {};
  });
}

result<void> sql_store::pin_device(std::string_view device, std::optional<lease::role> as) {
  return write(false, [&](database& db) -> result<void> {
    auto row = db.prepare(as ? "INSERT INTO pins (device, role) VALUES (?1, ?2) "
                               "ON CONFLICT (device) DO UPDATE SET role = excluded.role"
                             : "DELETE FROM pins WHERE device = ?1");
    if (as)
      row.bind(device, lease::name_of(*as));
    else
      row.bind(device);
    if (auto run = row.run(); !run) return run.error();
    return {};
  });
}

}  // namespace tandem::store
