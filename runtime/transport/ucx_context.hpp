// The process's UCX context. Shared by everything that holds memory registered with it, because it
// must outlive all of that: UCX aborts otherwise.
#pragma once

#include "runtime/result.hpp"

#include <ucp/api/ucp.h>

#include <memory>
#include <string>

namespace tandem::transport {

struct ucx_settings {
  std::string transports;  // as in UCX_TLS
  std::string devices;     // as in UCX_NET_DEVICES; empty: all
};

class ucx_context {
 public:
  // Sets variables of the environment that UCX takes from nowhere else: call it early.
  static result<std::shared_ptr<ucx_context>> open(const ucx_settings& wanted);
  ~ucx_context();
  ucx_context(const ucx_context&) = delete;
  ucx_context& operator=(const ucx_context&) = delete;

  ucp_context_h handle() const { return handle_; }

 private:
  explicit ucx_context(ucp_context_h handle) : handle_(handle) {}
  ucp_context_h handle_;
};

error ucx_error(std::string_view what, ucs_status_t status);

}  // namespace tandem::transport
