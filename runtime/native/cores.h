/* cores.h - the processor cores that this process may use. */
#ifndef BSX_CORES_H
#define BSX_CORES_H

/* At least 1, which it is where the system does not tell. */
unsigned bsx_cores(void);

#endif
