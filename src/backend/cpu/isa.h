// isa.h - which instruction set the kernels use: chosen once, when a backend is made.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace minillm::cpu {

/// In increasing order of preference. Names: "scalar", "avx2", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx".
enum class Isa : uint8_t { kScalar, kAvx2, kAvxVnni, kAvx512Vnni, kAvx512Bf16, kAmx };

std::string_view name_of(Isa isa) noexcept;
/// Whether this processor (and its operating system) runs it.
bool is_supported(Isa isa) noexcept;
std::span<const Isa> all_isas() noexcept;

/// The best supported one, or the one that `forced` names (the value of MINILLM_ISA; empty is no wish).
/// Throws Error{kInvalidArgument} for an unknown name, Error{kUnsupported} for one this processor lacks.
Isa choose_isa(std::string_view forced);

}  // namespace minillm::cpu
