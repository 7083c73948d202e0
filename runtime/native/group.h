/* group.h - the blocks of a group, decoded side by side: what writing them out and multiplying by them have in common. */
#ifndef BSX_GROUP_H
#define BSX_GROUP_H

#include "blob.h"
#include "kernels.h"

/* What is decoded, and with what. */
typedef struct bsx_job {
    const uint8_t *blob, *payload;
    const bsx_head *head;
    bsx_workspace prepared;
    bsx_setup setup;
    const bsx_kernels *kernels;
    bsx_conversion conversion;
    uint8_t *scratch, *staging; /* the streams' elements; a block before it is written */
} bsx_job;

/* A block of a group. */
typedef struct bsx_lane {
    bsx_block block;
    const uint8_t *data;
    const uint8_t *bitmap; /* BM: a copy, since another process may change a mapped file between two looks at it */
    bsx_status status;
    uint32_t coded; /* symbols in the level stream */
    void *elements; /* BSX_AS_LEVELS: int8_t, BSX_AS_SYMBOLS: uint16_t */
    uint16_t *runs;
} bsx_lane;

/* Are these a blob, its head, a workspace and a scratch that belong together, and some of its blocks? */
bool bsx_job_valid(const void *blob, size_t size, const bsx_head *head, const void *workspace, size_t workspace_bytes,
                   uint64_t first_block, uint64_t count, const void *scratch, size_t scratch_bytes);
bsx_job bsx_job_of(const void *blob, const bsx_head *head, const void *workspace, unsigned flags, void *scratch);

/* Decode the streams of `count` <= BSX_GROUP blocks into the job's scratch. Each lane has its status; the runs of RL may
 * still be longer than the block. */
void bsx_read_group(const bsx_job *job, uint64_t first_block, unsigned count, bsx_lane *lanes);

/* What a lane's elements are written as. */
bsx_elements bsx_lane_elements(const bsx_job *job, const void *elements);
/* decode.c: write a block that was read well. False: its streams do not fit together. */
bool bsx_write_block(const bsx_job *job, const bsx_lane *lane, uint8_t *out);

#endif
