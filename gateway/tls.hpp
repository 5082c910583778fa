// The TLS set-up of server.tls_cert and server.tls_key.
#pragma once

#include "runtime/result.hpp"
#include "runtime/settings.hpp"

#include <boost/asio/ssl/context.hpp>

#include <memory>

namespace tandem::gateway {

// Null when neither is set. TLS 1.2 and newer; the certificate's chain in one PEM file.
result<std::shared_ptr<boost::asio::ssl::context>> tls_context(const server_settings& settings);

}  // namespace tandem::gateway
