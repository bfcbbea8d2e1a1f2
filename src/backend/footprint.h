// footprint.h - how much memory a device's backend takes for itself, by arithmetic alone: memory is planned for devices that are not there.
#pragma once

#include <cstdint>

#include "backend/backend.h"
#include "backend/kv_storage.h"
#include "minillm/types.h"

namespace minillm {

/// Bytes of a weight [rows, cols] as Backend::pack stores it on such a device; rank 1 is one row.
int64_t weight_footprint(Device::Kind kind, Dtype dtype, int64_t rows, int64_t cols);

/// Bytes that the backend allocates beside weights to run steps of this shape, tiles of a CPU apart (cpu_tile_bytes()).
/// `has_quantised`: whether some weights are stored in blocks. `kv`: the cache, with all its pages.
int64_t step_footprint(Device::Kind kind, const WorkspaceShape& shape, bool has_quantised, const KvShape& kv);

}  // namespace minillm
