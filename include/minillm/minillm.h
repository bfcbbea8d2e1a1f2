// minillm.h - the whole public API. Start at model.h (MiniLLM), kv_cache.h (KVCache) and generator.h (TextGenerator).
#pragma once

#include "minillm/attention.h"
#include "minillm/chat.h"
#include "minillm/config.h"
#include "minillm/engine.h"
#include "minillm/error.h"
#include "minillm/file_info.h"
#include "minillm/generator.h"
#include "minillm/kv_cache.h"
#include "minillm/metrics.h"
#include "minillm/model.h"
#include "minillm/pull.h"
#include "minillm/tensor.h"
#include "minillm/tokenizer.h"
#include "minillm/types.h"
