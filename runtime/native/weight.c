/* weight.c - check and prepare the blob of an operator. */
#include "weight.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "blob.h"

/* Dims as [2, 3], cut short if there is no room. */
static void write_dims(char *out, size_t size, const uint64_t *dims, unsigned ndim) {
    size_t used = 0;
    for (unsigned i = 0; i < ndim && used < size; i++)
        used += (size_t)snprintf(out + used, size - used, "%s%" PRIu64, i ? ", " : "[", dims[i]);
    if (used < size) snprintf(out + used, size - used, "%s", ndim ? "]" : "[]");
}

static bool check_shape(const bsx_node *node, const bsx_head *head, char *line) {
    if (head->ndim == node->ndim && memcmp(head->dims, node->dims, node->ndim * sizeof *node->dims) == 0) return true;
    char found[96], expected[96];
    write_dims(found, sizeof found, head->dims, head->ndim);
    write_dims(expected, sizeof expected, node->dims, node->ndim);
    snprintf(line, BSX_LINE_BYTES,
             "%s %s: its blob holds a tensor of shape %s, its attribute shape says %s; the graph and the weights are not "
             "of one package: copy the package again",
             node->op, node->name, found, expected);
    return false;
}

static bool prepare(bsx_weight *weight, const bsx_node *node, const void *blob, size_t size, char *line) {
    const bsx_head *head = &weight->head;
    weight->workspace = malloc((size_t)head->workspace_bytes);
    if (!weight->workspace) {
        snprintf(line, BSX_LINE_BYTES, "%s %s: no memory for %" PRIu64 " bytes of tables", node->op, node->name,
                 head->workspace_bytes);
        return false;
    }
    const size_t workspace_bytes = (size_t)head->workspace_bytes; /* too few of them are refused */
    const bsx_status status = bsx_prepare(blob, size, head, node->type, weight->workspace, workspace_bytes);
    if (status == BSX_OK) return true;
    if (!bsx_type_holds(node->type, head))
        snprintf(line, BSX_LINE_BYTES,
                 "%s %s: its attribute dtype is %d, which does not hold the levels %" PRId32 " to %" PRId32
                 " of its blob: pack the model again",
                 node->op, node->name, node->type, head->least_level, head->greatest_level);
    else bsx_weight_damaged(node, status, 0, line);
    bsx_weight_close(weight);
    return false;
}

bool bsx_weight_open(bsx_weight *weight, const bsx_node *node, const void *blob, size_t size,
                     char line[BSX_LINE_BYTES]) {
    const bsx_status status = bsx_parse(blob, size, &weight->head);
    if (status != BSX_OK) {
        snprintf(line, BSX_LINE_BYTES, "%s %s: its blob of %zu bytes breaks the rule %s of the format: copy the package again",
                 node->op, node->name, size, bsx_status_name((int)status));
        return false;
    }
    if (weight->head.layout == BSX_RAW) {
        snprintf(line, BSX_LINE_BYTES, "%s %s: its blob is not coded (layout RAW), expected EG, RL or BM: pack the model again",
                 node->op, node->name);
        return false;
    }
    if (!check_shape(node, &weight->head, line) || !prepare(weight, node, blob, size, line)) return false;
    const bsx_matrix matrix = {blob, size, &weight->head, weight->workspace,
                               (size_t)weight->head.workspace_bytes};
    weight->matrix = matrix;
    return true;
}

void bsx_weight_close(bsx_weight *weight) {
    free(weight->workspace);
    weight->workspace = NULL;
}

void bsx_weight_damaged(const bsx_node *node, bsx_status status, uint64_t block, char line[BSX_LINE_BYTES]) {
    if (status == BSX_BLOCK_CRC || status == BSX_BAD_STREAM)
        snprintf(line, BSX_LINE_BYTES, "%s %s: block %" PRIu64 " of its blob is damaged (%s): copy the package again",
                 node->op, node->name, block, bsx_status_name((int)status));
    else
        snprintf(line, BSX_LINE_BYTES, "%s %s: its blob cannot be read (%s): its bytes were changed while it was used",
                 node->op, node->name, bsx_status_name((int)status));
}
