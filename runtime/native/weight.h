/* weight.h - the weight of an operator: a blob that was checked and prepared once, and what the node says of it. */
#ifndef BSX_WEIGHT_H
#define BSX_WEIGHT_H

#include "bsx.h"
#include "product.h"

/* Attributes of a node: docs/format.md, section 8. */
typedef struct bsx_node {
    const char *op;
    char name[128];  /* of the node; a longer one is left out */
    uint64_t dims[8];
    unsigned ndim;
    int type;        /* that the weight is decoded to, of bsx_dtype */
    bool transposed;
} bsx_node;

/* Points into itself: it must stay where it is. */
typedef struct bsx_weight {
    bsx_matrix matrix;
    bsx_head head;
    void *workspace;
} bsx_weight;

enum { BSX_LINE_BYTES = 512 };

/* Check a blob against what the node says of it, and prepare it. False: line says why, and nothing is to be closed. The
 * blob's bytes must stay until bsx_weight_close. */
bool bsx_weight_open(bsx_weight *weight, const bsx_node *node, const void *blob, size_t size,
                     char line[BSX_LINE_BYTES]);
void bsx_weight_close(bsx_weight *weight);

/* Say that a block is damaged, or whatever else the status of a product, gather or decode means. */
void bsx_weight_damaged(const bsx_node *node, bsx_status status, uint64_t block, char line[BSX_LINE_BYTES]);

#endif
