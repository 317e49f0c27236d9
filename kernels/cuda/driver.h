/* SPDX-License-Identifier: Apache-2.0 */
/*
 * driver.h - CUDA's driver API, opened when we run: there may be no driver here.
 *
 * The model
 *   table    PST_CUDA_CALLS: every function of the driver that anybody here calls. Required ones
 *            are in every driver since 525 (CUDA 12.0); an optional one that the driver lacks is
 *            NULL in struct pst_cuda, and who wants it has another way.
 *   library  found once in a process, by pst_cuda_open(): libcuda.so.1, or what
 *            $PENSTOCK_CUDA_LIB names. It stays open.
 *   outcome  what was found. No library, one that is too old, no GPU, and a driver that does not
 *            start are different things, each with its sentence.
 *
 * Functions are asked for by cuGetProcAddress() with the CUDA version whose ABI is declared here,
 * so that a newer driver does not put another one in its place.
 *
 * Prototypes and numbers are facts of NVIDIA's public reference (docs.nvidia.com/cuda/
 * cuda-driver-api); its header is not needed, and must not be included beside this one.
 *
 * Threads: any. A child of fork() cannot use a driver that its parent has opened.
 */
#ifndef PST_CUDA_DRIVER_H
#define PST_CUDA_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#define PST_CUDA_LIBRARY     "libcuda.so.1"
#define PST_CUDA_LIBRARY_ENV "PENSTOCK_CUDA_LIB"

typedef uint32_t CUresult;
typedef int CUdevice;
typedef unsigned long long CUdeviceptr;
typedef struct cuda_gpu *CUcontext;
typedef struct cuda_stream *CUstream;
typedef struct cuda_event *CUevent;
typedef struct cuda_module *CUmodule;
typedef struct cuda_module *CUlibrary;
typedef struct cuda_function *CUfunction;
typedef struct cuda_function *CUkernel;
typedef struct cuda_graph *CUgraph;
typedef struct cuda_graph *CUgraphExec;
typedef struct {
	char bytes[16];
} CUuuid;

/* X(name, number, what it means) */
/* clang-format off */
#define PST_CUDA_ERRORS(X) \
	X(CUDA_SUCCESS, 0, "no error") \
	X(CUDA_ERROR_INVALID_VALUE, 1, "invalid argument") \
	X(CUDA_ERROR_OUT_OF_MEMORY, 2, "out of memory") \
	X(CUDA_ERROR_NOT_INITIALIZED, 3, "initialization error") \
	X(CUDA_ERROR_DEINITIALIZED, 4, "driver shutting down") \
	X(CUDA_ERROR_STUB_LIBRARY, 34, "the library is a stub to link with") \
	X(CUDA_ERROR_DEVICE_UNAVAILABLE, 46, "CUDA-capable device is busy or unavailable") \
	X(CUDA_ERROR_NO_DEVICE, 100, "no CUDA-capable device is detected") \
	X(CUDA_ERROR_INVALID_DEVICE, 101, "invalid device ordinal") \
	X(CUDA_ERROR_INVALID_IMAGE, 200, "device kernel image is invalid") \
	X(CUDA_ERROR_INVALID_CONTEXT, 201, "invalid device context") \
	X(CUDA_ERROR_NO_BINARY_FOR_GPU, 209, "no kernel image is available") \
	X(CUDA_ERROR_ECC_UNCORRECTABLE, 214, "uncorrectable ECC error encountered") \
	X(CUDA_ERROR_INVALID_PTX, 218, "a PTX JIT compilation failed") \
	X(CUDA_ERROR_NVLINK_UNCORRECTABLE, 220, "uncorrectable NVLink error detected") \
	X(CUDA_ERROR_CONTAINED, 226, "an error that was contained to this process") \
	X(CUDA_ERROR_OPERATING_SYSTEM, 304, "an operating system call failed") \
	X(CUDA_ERROR_INVALID_HANDLE, 400, "invalid resource handle") \
	X(CUDA_ERROR_ILLEGAL_STATE, 401, "the operation cannot be performed now") \
	X(CUDA_ERROR_NOT_FOUND, 500, "named symbol not found") \
	X(CUDA_ERROR_NOT_READY, 600, "device not ready") \
	X(CUDA_ERROR_ILLEGAL_ADDRESS, 700, "an illegal memory access was encountered") \
	X(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701, "too many resources requested for launch") \
	X(CUDA_ERROR_LAUNCH_TIMEOUT, 702, "the launch timed out and was terminated") \
	X(CUDA_ERROR_CONTEXT_IS_DESTROYED, 709, "context is destroyed") \
	X(CUDA_ERROR_ASSERT, 710, "device-side assert triggered") \
	X(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, 712, "memory is registered already") \
	X(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, 713, "memory is not registered") \
	X(CUDA_ERROR_HARDWARE_STACK_ERROR, 714, "hardware stack error") \
	X(CUDA_ERROR_ILLEGAL_INSTRUCTION, 715, "an illegal instruction was encountered") \
	X(CUDA_ERROR_MISALIGNED_ADDRESS, 716, "misaligned address") \
	X(CUDA_ERROR_INVALID_ADDRESS_SPACE, 717, "operation not supported in this address space") \
	X(CUDA_ERROR_INVALID_PC, 718, "invalid program counter") \
	X(CUDA_ERROR_LAUNCH_FAILED, 719, "unspecified launch failure") \
	X(CUDA_ERROR_TENSOR_MEMORY_LEAK, 721, "tensor memory was not given back") \
	X(CUDA_ERROR_NOT_PERMITTED, 800, "operation not permitted") \
	X(CUDA_ERROR_NOT_SUPPORTED, 801, "operation not supported") \
	X(CUDA_ERROR_SYSTEM_NOT_READY, 802, "system not yet initialized") \
	X(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803, "driver and library are of different versions") \
	X(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE, 804, "this GPU has no forward compatibility") \
	X(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900, "not permitted in a capture") \
	X(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901, "the capture was invalidated") \
	X(CUDA_ERROR_EXTERNAL_DEVICE, 911, "an asynchronous error of an external device") \
	X(CUDA_ERROR_UNKNOWN, 999, "unknown error") \
	/* EOL */
/* clang-format on */

enum {
#define PST_CUDA_ERROR_VALUE(name, number, text) name = number,
	PST_CUDA_ERRORS(PST_CUDA_ERROR_VALUE)
#undef PST_CUDA_ERROR_VALUE
};

/* Attributes of a device, by their numbers. */
enum {
	CU_DEVICE_MULTIPROCESSOR_COUNT = 16,
	CU_DEVICE_PCI_BUS_ID = 33,
	CU_DEVICE_PCI_DEVICE_ID = 34,
	CU_DEVICE_PCI_DOMAIN_ID = 50,
	CU_DEVICE_COMPUTE_CAPABILITY_MAJOR = 75,
	CU_DEVICE_COMPUTE_CAPABILITY_MINOR = 76,
	CU_DEVICE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM = 91,
	CU_DEVICE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN = 97,
	CU_DEVICE_HOST_REGISTER_SUPPORTED = 99,
	CU_DEVICE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES = 100,
	CU_DEVICE_READ_ONLY_HOST_REGISTER_SUPPORTED = 113,
	CU_DEVICE_DMA_BUF_SUPPORTED = 124,
	CU_DEVICE_HOST_NUMA_ID = 134,
};

#define CU_STREAM_NON_BLOCKING	1
#define CU_EVENT_DISABLE_TIMING 2
#define CU_STREAM_LEGACY	((CUstream)1)

#define CU_MEMHOSTREGISTER_PORTABLE  1
#define CU_MEMHOSTREGISTER_DEVICEMAP 2
#define CU_MEMHOSTREGISTER_READ_ONLY 8

#define CU_FUNC_MAX_DYNAMIC_SHARED_SIZE_BYTES 8

enum { CU_POINTER_MEMORY_TYPE = 2, CU_POINTER_DEVICE_ORDINAL = 9 };
enum { CU_MEMORYTYPE_HOST = 1, CU_MEMORYTYPE_DEVICE = 2 };
enum { CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1 };

/* Of a copy in a batch: its source is read in the stream's order, or at any time. */
enum { CU_MEMCPY_SRC_ACCESS_ORDER_STREAM = 1, CU_MEMCPY_SRC_ACCESS_ORDER_ANY = 3 };
enum { CU_MEMCPY_FLAG_PREFER_OVERLAP_WITH_COMPUTE = 1 };
typedef struct {
	int src_access_order;
	int src_hint[2], dst_hint[2]; /* for managed memory */
	unsigned int flags;
} CUmemcpyAttributes;

enum { CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD = 1 };
enum { CU_MEM_RANGE_FLAG_DMA_BUF_MAPPING_TYPE_PCIE = 1 };

/* The next kernel of the stream may begin before this one has ended, if it waits by itself. */
enum { CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION = 6 };
typedef struct {
	int id;
	char pad[4];
	union {
		char pad[64];
		int allowed;
		uint64_t align;
	} value;
} CUlaunchAttribute;
typedef struct {
	unsigned int grid[3], block[3], shared;
	CUstream stream;
	CUlaunchAttribute *attrs;
	unsigned int nattrs;
} CUlaunchConfig;

/* (name, symbol in the library, CUDA version of the ABI, arguments). All return a CUresult. */
/* clang-format off */
#define PST_CUDA_CALLS(REQUIRED, OPTIONAL) \
	REQUIRED(cuInit, cuInit, 2000, (unsigned int flags)) \
	REQUIRED(cuDriverGetVersion, cuDriverGetVersion, 2020, (int *to)) \
	REQUIRED(cuGetErrorName, cuGetErrorName, 6000, (CUresult rc, const char **to)) \
	REQUIRED(cuGetErrorString, cuGetErrorString, 6000, (CUresult rc, const char **to)) \
	REQUIRED(cuGetProcAddress, cuGetProcAddress_v2, 12000, \
		(const char *name, void **to, int version, uint64_t flags, int *status)) \
	REQUIRED(cuDeviceGet, cuDeviceGet, 2000, (CUdevice *to, int index)) \
	REQUIRED(cuDeviceGetCount, cuDeviceGetCount, 2000, (int *to)) \
	REQUIRED(cuDeviceGetName, cuDeviceGetName, 2000, (char *to, int len, CUdevice dev)) \
	REQUIRED(cuDeviceGetUuid, cuDeviceGetUuid_v2, 11040, (CUuuid *to, CUdevice dev)) \
	REQUIRED(cuDeviceTotalMem, cuDeviceTotalMem_v2, 3020, (size_t *to, CUdevice dev)) \
	REQUIRED(cuDeviceGetAttribute, cuDeviceGetAttribute, 2000, \
		(int *to, int attribute, CUdevice dev)) \
	REQUIRED(cuDeviceGetPCIBusId, cuDeviceGetPCIBusId, 4010, \
		(char *to, int len, CUdevice dev)) \
	REQUIRED(cuDeviceGetByPCIBusId, cuDeviceGetByPCIBusId, 4010, \
		(CUdevice *to, const char *pci)) \
	REQUIRED(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain, 7000, \
		(CUcontext *to, CUdevice dev)) \
	REQUIRED(cuDevicePrimaryCtxRelease, cuDevicePrimaryCtxRelease_v2, 11000, (CUdevice dev)) \
	REQUIRED(cuDevicePrimaryCtxGetState, cuDevicePrimaryCtxGetState, 7000, \
		(CUdevice dev, unsigned int *flags, int *active)) \
	REQUIRED(cuCtxSetCurrent, cuCtxSetCurrent, 4000, (CUcontext ctx)) \
	REQUIRED(cuCtxGetCurrent, cuCtxGetCurrent, 4000, (CUcontext *to)) \
	REQUIRED(cuCtxPushCurrent, cuCtxPushCurrent_v2, 4000, (CUcontext ctx)) \
	REQUIRED(cuCtxPopCurrent, cuCtxPopCurrent_v2, 4000, (CUcontext *to)) \
	REQUIRED(cuCtxGetDevice, cuCtxGetDevice, 2000, (CUdevice *to)) \
	REQUIRED(cuCtxSynchronize, cuCtxSynchronize, 2000, (void)) \
	REQUIRED(cuMemAlloc, cuMemAlloc_v2, 3020, (CUdeviceptr *to, size_t len)) \
	REQUIRED(cuMemFree, cuMemFree_v2, 3020, (CUdeviceptr at)) \
	REQUIRED(cuMemGetInfo, cuMemGetInfo_v2, 3020, (size_t *free, size_t *total)) \
	REQUIRED(cuMemHostAlloc, cuMemHostAlloc, 2020, \
		(void **to, size_t len, unsigned int flags)) \
	REQUIRED(cuMemFreeHost, cuMemFreeHost, 2000, (void *at)) \
	REQUIRED(cuMemHostRegister, cuMemHostRegister_v2, 6050, \
		(void *at, size_t len, unsigned int flags)) \
	REQUIRED(cuMemHostUnregister, cuMemHostUnregister, 4000, (void *at)) \
	REQUIRED(cuMemHostGetDevicePointer, cuMemHostGetDevicePointer_v2, 3020, \
		(CUdeviceptr *to, void *at, unsigned int flags)) \
	REQUIRED(cuPointerGetAttribute, cuPointerGetAttribute, 4000, \
		(void *to, int attribute, CUdeviceptr at)) \
	REQUIRED(cuMemcpyHtoD, cuMemcpyHtoD_v2, 3020, \
		(CUdeviceptr to, const void *from, size_t len)) \
	REQUIRED(cuMemcpyDtoH, cuMemcpyDtoH_v2, 3020, (void *to, CUdeviceptr from, size_t len)) \
	REQUIRED(cuMemcpyDtoD, cuMemcpyDtoD_v2, 3020, \
		(CUdeviceptr to, CUdeviceptr from, size_t len)) \
	REQUIRED(cuMemcpyHtoDAsync, cuMemcpyHtoDAsync_v2, 3020, \
		(CUdeviceptr to, const void *from, size_t len, CUstream s)) \
	REQUIRED(cuMemcpyDtoHAsync, cuMemcpyDtoHAsync_v2, 3020, \
		(void *to, CUdeviceptr from, size_t len, CUstream s)) \
	REQUIRED(cuMemcpyDtoDAsync, cuMemcpyDtoDAsync_v2, 3020, \
		(CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s)) \
	REQUIRED(cuMemcpyAsync, cuMemcpyAsync, 4000, \
		(CUdeviceptr to, CUdeviceptr from, size_t len, CUstream s)) \
	REQUIRED(cuMemsetD8, cuMemsetD8_v2, 3020, (CUdeviceptr to, unsigned char v, size_t n)) \
	REQUIRED(cuMemsetD32, cuMemsetD32_v2, 3020, (CUdeviceptr to, unsigned int v, size_t n)) \
	REQUIRED(cuMemsetD8Async, cuMemsetD8Async, 3020, \
		(CUdeviceptr to, unsigned char v, size_t n, CUstream s)) \
	REQUIRED(cuMemsetD32Async, cuMemsetD32Async, 3020, \
		(CUdeviceptr to, unsigned int v, size_t n, CUstream s)) \
	REQUIRED(cuStreamCreate, cuStreamCreate, 2000, (CUstream *to, unsigned int flags)) \
	REQUIRED(cuStreamCreateWithPriority, cuStreamCreateWithPriority, 5050, \
		(CUstream *to, unsigned int flags, int priority)) \
	REQUIRED(cuStreamDestroy, cuStreamDestroy_v2, 4000, (CUstream s)) \
	REQUIRED(cuStreamSynchronize, cuStreamSynchronize, 2000, (CUstream s)) \
	REQUIRED(cuStreamQuery, cuStreamQuery, 2000, (CUstream s)) \
	REQUIRED(cuStreamWaitEvent, cuStreamWaitEvent, 3020, \
		(CUstream s, CUevent e, unsigned int flags)) \
	REQUIRED(cuEventCreate, cuEventCreate, 2000, (CUevent *to, unsigned int flags)) \
	REQUIRED(cuEventDestroy, cuEventDestroy_v2, 4000, (CUevent e)) \
	REQUIRED(cuEventRecord, cuEventRecord, 2000, (CUevent e, CUstream s)) \
	REQUIRED(cuEventQuery, cuEventQuery, 2000, (CUevent e)) \
	REQUIRED(cuEventSynchronize, cuEventSynchronize, 2000, (CUevent e)) \
	REQUIRED(cuEventElapsedTime, cuEventElapsedTime, 2000, \
		(float *ms, CUevent from, CUevent to)) \
	REQUIRED(cuModuleLoadData, cuModuleLoadData, 2000, (CUmodule *to, const void *image)) \
	REQUIRED(cuModuleUnload, cuModuleUnload, 2000, (CUmodule m)) \
	REQUIRED(cuModuleGetFunction, cuModuleGetFunction, 2000, \
		(CUfunction *to, CUmodule m, const char *name)) \
	REQUIRED(cuLibraryLoadData, cuLibraryLoadData, 12000, \
		(CUlibrary *to, const void *image, int *jit, void **jit_values, \
		unsigned int njit, int *options, void **option_values, unsigned int noptions)) \
	REQUIRED(cuLibraryUnload, cuLibraryUnload, 12000, (CUlibrary l)) \
	REQUIRED(cuLibraryGetKernel, cuLibraryGetKernel, 12000, \
		(CUkernel *to, CUlibrary l, const char *name)) \
	REQUIRED(cuKernelGetFunction, cuKernelGetFunction, 12000, (CUfunction *to, CUkernel k)) \
	REQUIRED(cuFuncSetAttribute, cuFuncSetAttribute, 9000, \
		(CUfunction f, int attribute, int value)) \
	REQUIRED(cuFuncGetAttribute, cuFuncGetAttribute, 2020, \
		(int *to, int attribute, CUfunction f)) \
	REQUIRED(cuLaunchKernel, cuLaunchKernel, 4000, \
		(CUfunction f, unsigned int gx, unsigned int gy, unsigned int gz, \
		unsigned int bx, unsigned int by, unsigned int bz, unsigned int shared, \
		CUstream s, void **params, void **extra)) \
	REQUIRED(cuStreamBeginCapture, cuStreamBeginCapture_v2, 10010, (CUstream s, int mode)) \
	REQUIRED(cuStreamEndCapture, cuStreamEndCapture, 10000, (CUstream s, CUgraph *to)) \
	REQUIRED(cuStreamIsCapturing, cuStreamIsCapturing, 10000, (CUstream s, int *to)) \
	REQUIRED(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags, 11040, \
		(CUgraphExec *to, CUgraph g, unsigned long long flags)) \
	REQUIRED(cuGraphLaunch, cuGraphLaunch, 10000, (CUgraphExec g, CUstream s)) \
	REQUIRED(cuGraphExecDestroy, cuGraphExecDestroy, 10000, (CUgraphExec g)) \
	REQUIRED(cuGraphDestroy, cuGraphDestroy, 10000, (CUgraph g)) \
	OPTIONAL(cuCtxGetStreamPriorityRange, cuCtxGetStreamPriorityRange, 5050, \
		(int *least, int *greatest)) \
	OPTIONAL(cuFuncLoad, cuFuncLoad, 12040, (CUfunction f)) \
	OPTIONAL(cuLaunchKernelEx, cuLaunchKernelEx, 11060, \
		(const CUlaunchConfig *config, CUfunction f, void **params, void **extra)) \
	OPTIONAL(cuMemcpyBatchAsync, cuMemcpyBatchAsync_v2, 13000, \
		(CUdeviceptr *to, CUdeviceptr *from, size_t *len, size_t n, \
		CUmemcpyAttributes *attrs, size_t *attrs_from, size_t nattrs, CUstream s)) \
	OPTIONAL(cuMemGetHandleForAddressRange, cuMemGetHandleForAddressRange, 11070, \
		(void *handle, CUdeviceptr at, size_t len, int type, unsigned long long flags)) \
	/* EOL */
/* clang-format on */

struct pst_cuda {
#define PST_CUDA_MEMBER(name, symbol, version, args) CUresult(*name) args;
	PST_CUDA_CALLS(PST_CUDA_MEMBER, PST_CUDA_MEMBER)
#undef PST_CUDA_MEMBER
};

enum pst_cuda_state {
	PST_CUDA_READY,
	PST_CUDA_NO_LIBRARY, /* there is no driver, or not for this process */
	PST_CUDA_TOO_OLD,    /* it lacks a required call */
	PST_CUDA_NO_DEVICE,  /* a driver, and no GPU that it would show */
	PST_CUDA_BROKEN,     /* it does not start for another reason */
};

/**
 * struct pst_cuda_outcome - what was found
 * @state: which outcome
 * @rc: of cuInit()
 * @version: CUDA version of the driver, 13000 for 13.0; 0: not known
 * @library: what was looked for
 * @lacks: the first required call that it has not; or ""
 * @text: a sentence with cause and remedy; "" when all is well
 */
struct pst_cuda_outcome {
	enum pst_cuda_state state;
	CUresult rc;
	int version;
	char library[256];
	char lacks[64];
	char text[500];
};

/*
 * The driver, opened and started by the first who calls; all others get the same. 0, -ENOENT
 * (NO_LIBRARY), -ENOSYS (TOO_OLD), -ENODEV (NO_DEVICE), -EIO (BROKEN). @outcome, which may be NULL,
 * is filled in any case.
 */
int pst_cuda_open(const struct pst_cuda **out, struct pst_cuda_outcome *outcome);

/* "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"; of any code, with or without a driver. A code that
 * is not in the table is "CUDA_ERROR" and "an error of another driver". */
const char *pst_cuda_error_name(CUresult rc);
const char *pst_cuda_error_text(CUresult rc);

/* Does it stay, whatever is called next, until the process ends? */
int pst_cuda_error_stays(CUresult rc);

/* The image that a GPU of this compute capability runs: "sm_80", "sm_90a", "sm_100f"; NULL: none.
 * A cubin runs on GPUs of its major version that are not older; "a" on no other, "f" on its family
 * (docs.nvidia.com/cuda/cuda-c-programming-guide, binary compatibility). */
const char *pst_cuda_target(int major, int minor);

#endif /* PST_CUDA_DRIVER_H */
