#include "runtime/transport/ucx_context.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <ucs/debug/debug.h>

#include <csignal>
#include <cstdlib>
#include <string_view>

namespace tandem::transport {

namespace {

// UCX takes the signals of faults when it is loaded; they belong to the program.
void give_signals_back() {
  for (const int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE}) {
    struct sigaction now {};
    Dl_info where{};
    if (sigaction(signal, nullptr, &now) != 0 || (now.sa_flags & SA_SIGINFO) == 0) continue;
    const auto* handler = reinterpret_cast<const void*>(now.sa_sigaction);
    if (dladdr(handler, &where) != 0 &&
        std::string_view(where.dli_fname).find("libucs") != std::string_view::npos)
      ucs_debug_disable_signal(signal);
  }
}

}  // namespace

error ucx_error(std::string_view what, ucs_status_t status) {
  return {errc::io, fmt::format("UCX: {}: {}", what, ucs_status_string(status)), ""};
}

result<std::shared_ptr<ucx_context>> ucx_context::open(const ucx_settings& wanted) {
  // Shared memory counts as a transport that notices errors only with this, and it is read from
  // the environment alone.
  setenv("UCX_POSIX_ERROR_HANDLING", "y", 1);
  // A worker a peer: its ring and the buffers behind it are to be small (half a megabyte, not two).
  setenv("UCX_POSIX_RX_BUFS_GROW", "64", 0);
  give_signals_back();

  ucp_config_t* config = nullptr;
  if (const auto rc = ucp_config_read(nullptr, nullptr, &config); rc != UCS_OK)
    return ucx_error("reading its settings", rc);
  const std::unique_ptr<ucp_config_t, void (*)(ucp_config_t*)> owner(config, ucp_config_release);
  const auto set = [&](const char* name, const std::string& value) -> result<void> {
    if (value.empty()) return {};
    if (const auto rc = ucp_config_modify(config, name, value.c_str()); rc != UCS_OK)
      return ucx_error(fmt::format("{} = {}", name, value), rc);
    return {};
  };
  // What goes wrong comes to us as a status; UCX would print it, to standard output.
  if (getenv("UCX_LOG_LEVEL") == nullptr)
    if (auto done = set("LOG_LEVEL", "fatal"); !done) return done.error();
  if (auto done = set("WARN_UNUSED_ENV_VARS", "n"); !done) return done.error();
  if (auto done = set("TLS", wanted.transports); !done) return done.error();
  if (auto done = set("NET_DEVICES", wanted.devices); !done) return done.error();

  ucp_params_t params{};
  params.field_mask = UCP_PARAM_FIELD_FEATURES | UCP_PARAM_FIELD_MT_WORKERS_SHARED;
  params.features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP;
  params.mt_workers_shared = 1;  // memory is registered by whoever needs it
  ucp_context_h handle = nullptr;
  if (const auto rc = ucp_init(&params, config, &handle); rc != UCS_OK)
    return ucx_error(fmt::format("no context for transports {} on {}", wanted.transports,
                                 wanted.devices.empty() ? "all devices" : wanted.devices),
                     rc);
  return std::shared_ptr<ucx_context>(new ucx_context(handle));
}

ucx_context::~ucx_context() { ucp_cleanup(handle_); }

}  // namespace tandem::transport
